"""A server on this machine that speaks the calls of the Hugging Face Hub that maskweave uses: repositories, commits with small and large files, branches,
listings and downloads. It counts refused tokens and keeps everything in memory."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_right"
LARGE = 4096
"""Bytes from which a file is sent apart from its commit, as weights are."""


class Hub:
    """The repositories, and the server while it is open."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        """Files by repository, commit and path."""
        self.branches: dict[str, dict[str, str]] = {}
        self.large: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def create(self, name: str) -> None:
        first = hashlib.sha1(name.encode()).hexdigest()
        self.commits.setdefault(name, {first: {}})
        self.branches.setdefault(name, {"main": first})

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.branches.get(name, {}).get(revision, revision)
        found = self.commits.get(name, {}).get(commit)
        return None if found is None else (commit, found)

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> str:
        before = self.branches[name][branch]
        files = dict(self.commits[name][before])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = hashlib.sha1(before.encode() + json.dumps(lines, sort_keys=True).encode()).hexdigest()
        self.commits[name][commit] = files
        self.branches[name][branch] = commit
        return commit


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_call(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        path = self.path.partition("?")[0]
        self.hub.calls.append(f"{self.command} {path}")
        writes = self.command in ("POST", "PUT") and not path.startswith("/lfs/") and "paths-info" not in path
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, 401)
            return
        for method, pattern, function in CALLS:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                function(self, body, *match.groups())
                return
        self.answer({"error": f"no such call: {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_call

    def create_repo(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        exists = name in self.hub.commits
        self.hub.create(name)
        self.answer({"url": f"{self.hub.url}/{name}"}, 409 if exists else 200)

    def validate_yaml(self, body: bytes) -> None:
        head = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        wrong = [key for key in ("license", "library_name") if not isinstance(head.get(key, ""), str)]
        self.answer({"errors": [{"message": f"{key} is no text"} for key in wrong], "warnings": []})

    def create_branch(self, body: bytes, name: str, branch: str) -> None:
        branches = self.hub.branches[name]
        exists = branch in branches
        branches.setdefault(branch, branches["main"])
        self.answer({}, 409 if exists else 201)

    def preupload(self, body: bytes, name: str, branch: str) -> None:
        files = json.loads(body)["files"]
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
            for f in files
        ]
        self.answer({"files": modes})

    def lfs_batch(self, body: bytes, name: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self.answer({})

    def make_commit(self, body: bytes, name: str, branch: str) -> None:
        commit = self.hub.commit(name, branch, [json.loads(line) for line in body.splitlines()])
        self.answer({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        found = self.hub.files(name, revision)
        if found is None:
            self.answer(
                {"error": "not found"},
                404,
                X_Error_Code="RevisionNotFound" if name in self.hub.commits else "RepoNotFound",
            )
            return
        commit, files = found
        self.answer({"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        found = self.hub.files(name, revision)
        files = {} if found is None else found[1]
        entries = [
            {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for p, c in files.items()
        ]
        self.answer(entries, 404 if found is None else 200)

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        found = self.hub.files(name, revision)
        if found is None or path not in found[1]:
            self.answer({"error": "not found"}, 404, X_Error_Code="EntryNotFound")
            return
        content = found[1][path]
        self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=found[0])


NAME, REV = r"([\w.-]+/[\w.-]+)", r"([\w.-]+)"
CALLS = [
    (("POST",), r"/api/repos/create", _Handler.create_repo),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), rf"/api/models/{NAME}/branch/{REV}", _Handler.create_branch),
    (("POST",), rf"/api/models/{NAME}/preupload/{REV}", _Handler.preupload),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/lfs/(\w+)", _Handler.lfs_put),
    (("POST",), rf"/api/models/{NAME}/commit/{REV}", _Handler.make_commit),
    (("GET",), rf"/api/models/{NAME}", _Handler.info),
    (("GET",), rf"/api/models/{NAME}/revision/{REV}", _Handler.info),
    (("GET",), rf"/api/models/{NAME}/tree/{REV}", _Handler.tree),
    (("GET", "HEAD"), rf"/{NAME}/resolve/{REV}/(.+)", _Handler.resolve),
]
