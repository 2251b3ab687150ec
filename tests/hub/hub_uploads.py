"""The hub of the tests, where files come in: repositories made, cards judged, LFS objects stored, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import yaml

LARGE = 2000  # bytes from which a file lies in the large-file store
_LICENCES = {"apache-2.0", "mit", "llama3", "llama3.1", "cc-by-4.0", "other", "unknown"}  # some of the hub's
_RELATIONS = {"adapter", "finetune", "merge", "quantized"}
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def faults_of(card: str) -> list[str]:
    """What the hub finds wrong with a card's header; empty where it takes it."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if found is None:
        return []
    try:
        told = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    bases, datasets = (told.get(key) or [] for key in ("base_model", "datasets"))
    names = [bases] if isinstance(bases, str) else bases
    faults = []
    if told.get("license", "mit") not in _LICENCES:
        faults.append('"license" must be one of ' + ", ".join(sorted(_LICENCES)))
    if told.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(told.get("license_name", ""))):
        faults.append('"license_name" must be lower case, digits, dots and dashes')
    if not all(isinstance(code, str) and re.fullmatch(r"[a-z]{2,3}", code) for code in told.get("language") or []):
        faults.append('"language" must be ISO 639 codes')
    if not all(isinstance(name, str) and _REPO.fullmatch(name) for name in [*names, *datasets]):
        faults.append('"base_model" and "datasets" must be names of repositories')
    if told.get("base_model_relation", "merge") not in _RELATIONS:
        faults.append('"base_model_relation" is unknown')
    return faults + _index_faults(told.get("model-index") or [])


def _index_faults(index: Any) -> list[str]:
    try:
        for model in index:
            for one in model["results"]:
                named = [model["name"], one["task"]["type"], one["dataset"]["type"], one["dataset"]["name"]]
                metrics = [(metric["type"], float(metric["value"])) for metric in one["metrics"]]
                if not all(named) or not metrics:
                    return ['"model-index" lacks a name']
    except (KeyError, TypeError, ValueError) as error:
        return [f'"model-index" is malformed: {error!r}']
    return []


class Uploads:
    """Mixed into the handler of hub_server."""

    hub: Any
    body: bytes
    path: str
    user: str
    _json: Any
    _refuse: Any
    _repo: Any
    _send: Any

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        if self.user != "friend" or name.split("/")[0] != "friend":
            return self._refuse(403 if self.user else 401, "", "You don't have the rights to create a model")
        if ("model", name) in self.hub.repos:
            return self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repo = self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return self._json({"url": f"{self.hub.url}/{name}", "name": repo.name, "id": repo.name})

    def card(self) -> None:
        faults = [self.hub.card_error] if self.hub.card_error else faults_of(json.loads(self.body)["content"])
        if faults:
            return self._json({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400)
        return self._json({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        if repo.find(revision) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        now = repo.commits[repo.find(revision)]
        files = []
        for file in json.loads(self.body)["files"]:
            large = file["size"] >= LARGE
            old = now.get(file["path"])
            oid = None if old is None else hashlib.sha256(old).hexdigest() if large else git_id(old)
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def batch(self, name: str) -> None:
        objects = []
        for one in json.loads(self.body)["objects"]:
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.store:
                verify = {"href": f"{self.hub.url}/verify/{one['oid']}"}
                entry["actions"] = {"upload": {"href": f"{self.hub.far}/put/{one['oid']}"}, "verify": verify}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def put(self, digest: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != digest:
            return self._json({"error": "checksum"}, 400)
        self.hub.store[digest] = self.body
        return self._send(200, b"", {})

    def verify(self, digest: str) -> None:
        self._json({}, 200 if len(self.hub.store.get(digest, b"")) == json.loads(self.body)["size"] else 404)

    def branch(self, kind: str, name: str, branch: str) -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        if self.user != "friend":
            return self._refuse(403, "", "Forbidden: you need write access")
        if branch in repo.refs:
            return self._json({"error": "Reference already exists"}, 409)
        repo.refs[branch] = repo.refs["main"]
        self._json({"success": True}, 201)

    def commit(self, kind: str, name: str, revision: str) -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        if self.user != "friend" or name.split("/")[0] != "friend":
            return self._refuse(403, "", "Forbidden: you need write access")
        if repo.find(revision) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = dict(repo.commits[repo.find(revision)])
        for line in self.body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files, revision)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})
