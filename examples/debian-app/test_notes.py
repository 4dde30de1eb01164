import tempfile
import unittest

from notes import create


class Notes(unittest.TestCase):
    def test_a_note_is_kept(self):
        with tempfile.TemporaryDirectory() as directory:
            client = create(f"{directory}/notes.db").test_client()
            self.assertEqual(client.get("/").json, [])
            self.assertEqual(client.post("/", data="buy milk").status_code, 201)
            self.assertEqual(client.get("/").json, ["buy milk"])
