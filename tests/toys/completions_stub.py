"""Just enough of an OpenAI-compatible server to score pairs with, on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CompletionsStub:
    """Answers requests by ``reply(path, body)``, a code with content; remembers what was asked."""

    def __init__(self, reply):
        stub = self
        self.asked, self.keys = [], []
        self.faults = []
        """Codes, or bytes that are no JSON, that come before the next answers."""
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, code, content, **headers):
                self.send_response(code)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.answer(200, json.dumps({"data": [{"id": "toy"}]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.asked.append((self.path, body))
                    stub.keys.append(self.headers.get("Authorization"))
                    fault = stub.faults.pop(0) if stub.faults else None
                if isinstance(fault, int):
                    return self.answer(fault, b"no: wait", Retry_After="0")
                if fault is not None:
                    return self.answer(200, fault)
                found = reply(self.path, body)
                usage = {"prompt_tokens": 10, "completion_tokens": 1}
                return self.answer(200, json.dumps({"usage": usage, **found}).encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def listed(path, logs):
    """An answer that lists tokens with log-probabilities, in the shape of the route."""
    if path.endswith("/chat/completions"):
        tokens = [{"token": token, "logprob": log} for token, log in logs.items()]
        return {"choices": [{"logprobs": {"content": [{"top_logprobs": tokens}]}}]}
    return {"choices": [{"logprobs": {"top_logprobs": [logs]}}]}


def echoed(prompt, log):
    """An answer that echoes a prompt letter by letter; the n-th has the log-probability ``log(n)``."""
    places = list(range(len(prompt)))
    logs = {
        "tokens": list(prompt),
        "text_offset": places,
        "token_logprobs": [None, *map(log, places[1:])],
    }
    return {"choices": [{"logprobs": logs}]}
