"""Just enough of the Hugging Face Hub to download a model from, on this machine."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHA = "0123456789" * 4


class HubStub:
    """Serves the files of folders as repositories: ``{"org/name": folder}``; remembers what was asked."""

    def __init__(self, repositories: dict[str, Path]) -> None:  # noqa: C901 - a class in a method
        stub = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def answer(self, body: bytes, code: int = 200, **headers: str) -> None:
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                stub.asked.append(path)
                if found := re.match(r"/api/models/([^/]+/[^/]+)(/.*)?$", path):
                    return self.describe(found[1], found[2] or "")
                if found := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                    return self.send_file(found[1], found[2])
                return self.answer(b"{}", 404)

            do_HEAD = do_GET  # noqa: N815 - the name the server looks for

            def describe(self, name: str, rest: str) -> None:
                if name not in repositories:
                    return self.answer(b"{}", 404, X_Error_Code="RepoNotFound")
                files = [p for p in repositories[name].rglob("*") if p.is_file()]
                names = [str(p.relative_to(repositories[name])) for p in files]
                if rest.startswith("/tree"):
                    sizes = [path.stat().st_size for path in files]
                    listing = [
                        {"type": "file", "path": n, "size": s, "oid": SHA}
                        for n, s in zip(names, sizes, strict=True)
                    ]
                    return self.answer(
                        json.dumps(listing).encode(), Content_Type="application/json"
                    )
                siblings = [{"rfilename": n} for n in names]
                content = {
                    "_id": "x",
                    "id": name,
                    "modelId": name,
                    "sha": SHA,
                    "siblings": siblings,
                }
                content |= {"private": False, "tags": [], "downloads": 0, "likes": 0}
                return self.answer(json.dumps(content).encode(), Content_Type="application/json")

            def send_file(self, name: str, file: str) -> None:
                content = (repositories[name] / file).read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                return self.answer(content, ETag=etag, X_Repo_Commit=SHA)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def reach(url: str, home: Path) -> None:
    """Let this process ask the Hub at ``url`` and keep what it gets below ``home``; for a fork."""
    from huggingface_hub import constants

    constants.ENDPOINT = url
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_CACHE = str(home / "hub")
    constants.HF_HUB_OFFLINE = False
    constants.HF_HUB_DISABLE_XET = True
