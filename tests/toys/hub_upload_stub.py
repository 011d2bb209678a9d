"""A Hub on this machine that also takes uploads: repositories are folders, files go to LFS or git as they would.

The handler's methods are long: each branch answers one request of the protocol, and they read best in its order.
"""

import base64
import hashlib
import json
import re
from pathlib import Path

from hub_stub import SHA, HubStub


class HubUploadStub(HubStub):
    """Keeps repositories below ``root``; ``created`` says which were made private, ``seen`` every header."""

    def __init__(self, root: Path) -> None:  # noqa: C901 - the protocol of an upload
        self.repositories: dict[str, Path] = {}
        super().__init__(self.repositories)
        stub, parent = self, self._server.RequestHandlerClass
        self.created: dict[str, bool] = {}
        self.tokens: set[str | None] = set()
        self.corrupt = ""
        objects: dict[str, bytes] = {}

        class Handler(parent):
            def reply(self, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    parts = []
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(parts)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def do_POST(self) -> None:  # noqa: N802 - the name the server looks for
                path, body = self.path.split("?")[0], self.body()
                stub.asked.append(path)
                stub.tokens.add(self.headers.get("Authorization"))
                if path == "/api/repos/create":
                    wish = json.loads(body)
                    name = f"{wish.get('organization')}/{wish['name']}"
                    if not wish.get("organization"):
                        name = wish["name"]
                    stub.add(name, private=wish.get("private", wish.get("visibility") == "private"))
                    return self.reply({"url": f"{stub.url}/{name}", "id": name})
                if path == "/api/validate-yaml":
                    return self.reply({"errors": [], "warnings": []})
                if "/preupload/" in path:
                    modes = [
                        {
                            "path": one["path"],
                            "uploadMode": "lfs"
                            if one["path"].endswith(".safetensors")
                            else "regular",
                            "shouldIgnore": False,
                        }
                        for one in json.loads(body)["files"]
                    ]
                    return self.reply({"files": modes})
                if path.endswith("/info/lfs/objects/batch"):
                    return self.reply(
                        {
                            "transfer": "basic",
                            "objects": [
                                {
                                    **one,
                                    "actions": {"upload": {"href": f"{stub.url}/lfs/{one['oid']}"}},
                                }
                                for one in json.loads(body)["objects"]
                            ],
                        }
                    )
                found = re.match(r"/api/models/([^/]+/[^/]+)/commit/", path)
                for line in body.splitlines():
                    entry = json.loads(line)
                    value = entry["value"]
                    if entry["key"] == "header":
                        continue
                    content = (
                        base64.b64decode(value["content"])
                        if entry["key"] == "file"
                        else objects[value["oid"]]
                    )
                    place = stub.repositories[found[1]] / value["path"]
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content + (b" " if value["path"] == stub.corrupt else b""))
                url = f"{stub.url}/{found[1]}/commit/{SHA}"
                return self.reply({"success": True, "commitOid": SHA, "commitUrl": url})

            def do_PUT(self) -> None:  # noqa: N802
                objects[self.path.rpartition("/")[2]] = self.body()
                self.reply({})

            def describe(self, name: str, rest: str) -> None:
                if name not in stub.repositories or rest.startswith("/tree"):
                    return super().describe(name, rest)
                folder = stub.repositories[name]
                siblings = []
                for path in folder.rglob("*"):
                    if not path.is_file():
                        continue
                    content = path.read_bytes()
                    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                    one = {"rfilename": path.relative_to(folder).as_posix(), "blobId": blob}
                    if path.suffix == ".safetensors":
                        digest = hashlib.sha256(content).hexdigest()
                        one["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
                    siblings.append(one | {"size": len(content)})
                content = {
                    "_id": "x",
                    "id": name,
                    "modelId": name,
                    "sha": SHA,
                    "siblings": siblings,
                }
                content |= {"private": stub.created[name], "tags": [], "downloads": 0, "likes": 0}
                return self.reply(content)

        self._server.RequestHandlerClass = Handler
        self.root = root

    def add(self, name: str, *, private: bool) -> None:
        self.created[name] = private
        self.repositories[name] = self.root / name
        self.repositories[name].mkdir(parents=True)
