"""Reads pipelines and manifests with a real YAML reader, and prints the command lines of kiln in them as JSON.

    examples.py FILE...    [{"place": "FILE: job", "words": ["kiln", "build", …]}, …]

Scripts are split as a shell would split them; variables stay as they are written.
"""
import json, re, shlex, sys

import yaml

PROGRAMS = {"kiln": ["kiln"], "/kaniko/executor": ["kiln", "executor"], "/kaniko/warmer": ["kiln", "warmer"]}
SEPARATORS = set(";&|()")


def commands(script):
    """The simple commands of a shell script."""
    # A command's substitution is one word here; what is in it is not kiln.
    script = re.sub(r"\$\([^)]*\)", "SUBSTITUTED", script.replace("\\\n", " "))
    for line in script.split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in lexer:
            if set(word) & SEPARATORS and set(word) <= SEPARATORS:
                yield words
                words = []
            else:
                words.append(word)
        yield words


def of_script(place, lines):
    for line in [lines] if isinstance(lines, str) else lines:
        for words in commands(line):
            if words and words[0] in PROGRAMS:
                yield {"place": place, "words": PROGRAMS[words[0]] + words[1:]}


def walk(place, value):
    if isinstance(value, list):
        for item in value:
            yield from walk(place, item)
    elif isinstance(value, dict):
        for key in ("before_script", "script", "after_script"):
            if key in value:
                yield from of_script(place, value[key])
        if "kiln" in str(value.get("image", "")) and "args" in value and "command" not in value:
            # Tekton puts any number of words in place of `$(params.NAME[*])`, none by default.
            words = [str(word) for word in value["args"] if "[*]" not in str(word)]
            yield {"place": place, "words": ["kiln", *words]}
        for key, item in value.items():
            yield from walk(f"{place}: {key}", item)


found = []
for path in sys.argv[1:]:
    with open(path) as file:
        for document in yaml.safe_load_all(file):
            assert isinstance(document, dict) and document, path
            if "apiVersion" in document:
                assert document["kind"] and document["metadata"]["name"], path
            found += walk(path, document)
print(json.dumps(found))
