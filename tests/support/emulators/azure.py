"""Azure's blobs of the tests' own: Azurite with an account made up here.

    azure.py AZURITE FILE    serves FILE as contexts/team/context.tar.gz until standard input ends

AZURITE is the directory npm installed it into. Prints one line of JSON: the endpoint, the account and its key.
"""
import base64, email.utils, hashlib, hmac, http.client, json, os, re, subprocess, sys, tempfile

ACCOUNT, KEY = "builder", base64.b64encode(b"a key of the tests' own").decode()


def put(address, path, query, headers, body=b""):
    """A PUT with a shared key, as https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key has it."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06", **headers}
    canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
    resource = f"/{ACCOUNT}/{ACCOUNT}{path}" + "".join(f"\n{key}:{value}" for key, value in sorted(query.items()))
    length = str(len(body)) if body else ""
    text = f"PUT\n\n\n{length}\n\n\n\n\n\n\n\n\n{canonical}{resource}"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    arguments = "&".join(f"{key}={value}" for key, value in query.items())
    connection = http.client.HTTPConnection(address)
    connection.request("PUT", f"/{ACCOUNT}{path}" + (f"?{arguments}" if arguments else ""), body, headers)
    answer = connection.getresponse()
    assert answer.status == 201, (answer.status, answer.read())


program = os.path.join(sys.argv[1], "node_modules/azurite/dist/src/blob/main.js")
with tempfile.TemporaryDirectory() as work:
    command = ["node", program, "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", work,
               "--skipApiVersionCheck", "--disableTelemetry"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              text=True, env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"})
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            found = re.search(r"successfully (?:listening on|listens on) http://([0-9.]+:[0-9]+)", line)
            if found:
                break
        else:
            sys.exit("azurite ended: " + "".join(said))
        address = found.group(1)
        put(address, "/contexts", {"restype": "container"}, {})
        with open(sys.argv[2], "rb") as file:
            put(address, "/contexts/team/context.tar.gz", {}, {"x-ms-blob-type": "BlockBlob"}, file.read())
        print(json.dumps({"endpoint": f"http://{address}/{ACCOUNT}", "account": ACCOUNT, "key": KEY}), flush=True)
        sys.stdin.read()
    finally:
        server.kill()
        server.wait()
