"""Reads pipelines and manifests with a real YAML reader.

    examples.py commands FILE...  kiln's command lines: [{"place": "FILE: job", "words": ["kiln", "build", …]}, …]
    examples.py jobs FILE...      GitLab's jobs with `extends` and variables resolved, and the containers of
                                  Kubernetes' and Tekton's manifests: what a runner or a cluster would start

Scripts are split as a shell would split them; variables stay as they are written. Prints JSON. A manifest without the
fields that its kind needs is an error.
"""
import json, os, re, shlex, sys

import yaml

PROGRAMS = {"kiln": ["kiln"], "/kaniko/executor": ["kiln", "executor"], "/kaniko/warmer": ["kiln", "warmer"]}
SEPARATORS = set(";&|()")
NOT_JOBS = {"stages", "variables", "default", "workflow", "include", "image"}
JOB_KEYS = {"image", "stage", "script", "before_script", "after_script", "rules", "variables", "artifacts", "extends",
            "needs", "cache", "parallel"}


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


def resolved(document, job):
    base = {}
    for name in [job["extends"]] if isinstance(job.get("extends"), str) else job.get("extends", []):
        base.update(resolved(document, document[name]))
    merged = {**base, **job}
    merged["variables"] = {**base.get("variables", {}), **job.get("variables", {})}
    return merged


def gitlab(path, document):
    stages = document.get("stages", ["build", "test", "deploy"])
    for name, job in document.items():
        if name in NOT_JOBS:
            continue
        assert set(job) <= JOB_KEYS, f"{path}: {name}: {set(job) - JOB_KEYS}"
        if name.startswith("."):
            continue
        job = resolved(document, job)
        assert job.get("stage", "test") in stages, f"{path}: {name}: no such stage"
        assert job["image"]["entrypoint"] == [""], f"{path}: {name}: the runner needs a shell"
        lines = job.get("before_script", []) + job["script"]
        assert all(isinstance(line, str) for line in lines), f"{path}: {name}"
        conditions = [rule["if"] for rule in job.get("rules", [])]
        yield {"file": os.path.basename(path), "name": name, "script": "\n".join(lines), "conditions": conditions,
               "variables": job["variables"], "artifacts": job.get("artifacts", {}).get("paths", [])}


def container(path, name, spec, container, volumes):
    kinds = {volume["name"]: sorted(set(volume) - {"name"})[0] for volume in volumes}
    for volume in volumes:
        assert len(volume) == 2, f"{path}: {name}: {volume}"
    mounts = {mount["mountPath"]: kinds[mount["name"]] for mount in container.get("volumeMounts", [])}
    security = container.get("securityContext", {})
    assert not security.get("privileged"), f"{path}: {name}: privileged"
    assert "secret" not in kinds.values(), f"{path}: {name}: steps in place could read a secret's volume"
    return {"file": os.path.basename(path), "name": name, "args": container["args"], "mounts": mounts,
            "env": {item["name"]: item["value"] for item in container.get("env", []) if "value" in item},
            "secrets": {item["name"]: item["valueFrom"]["secretKeyRef"]["key"] for item in container.get("env", [])
                        if "value" not in item},
            "directory": container.get("workingDir", ""), "user_namespace": spec.get("hostUsers") is False,
            "capabilities": security.get("capabilities", {}).get("add", [])}


def manifest(path, document):
    kind, name, spec = document["kind"], document["metadata"]["name"], document["spec"]
    versions = {"Job": "batch/v1", "Pod": "v1", "Task": "tekton.dev/v1"}
    assert document["apiVersion"] == versions[kind], f"{path}: {document['apiVersion']}"
    if kind == "Task":
        values = {f"$(params.{item['name']})": item.get("default") for item in spec["params"]}
        for step in spec["steps"]:
            job = container(path, name, spec, step, spec["volumes"])
            job["parameters"] = values
            yield job
        return
    pod = spec["template"]["spec"] if kind == "Job" else spec
    assert pod["restartPolicy"] == "Never", path
    assert pod["automountServiceAccountToken"] is False, f"{path}: steps in place could read the token"
    for item in pod["containers"]:
        yield container(path, name, pod, item, pod.get("volumes", []))


found = []
for path in sys.argv[2:]:
    with open(path) as file:
        for document in yaml.safe_load_all(file):
            assert isinstance(document, dict) and document, path
            is_manifest = "apiVersion" in document
            if is_manifest:
                assert document["kind"] and document["metadata"]["name"], path
            if sys.argv[1] == "commands":
                found += walk(path, document)
            else:
                found += (manifest if is_manifest else gitlab)(path, document)
print(json.dumps(found))
