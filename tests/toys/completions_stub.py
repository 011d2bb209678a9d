"""Just enough of an OpenAI-compatible server to score pairs with, or to write, on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CompletionsStub:
    """Answers requests by ``reply(path, body)``, a code with content; remembers what was asked, and when.

    Args:
        reply: Gives the content of an answer.
        fault: Given the name of a request (``X-Client-Request-Id``) and its body, a fault in the place of the answer,
            or None.
        hang_seconds: How long a request that hangs is held.
    """

    def __init__(self, reply, fault=None, hang_seconds=5.0):  # noqa: C901 - methods of a handler
        stub = self
        self.asked, self.keys, self.times = [], [], []
        self.fault = fault
        self.faults = []
        """What comes before the next answers: codes, bytes that are no JSON, "hang", or "cut" for half an answer."""
        self.said = b"no: wait"
        """What comes with a code."""
        self.wait = "0"
        """What is said with a code to wait."""
        self.billed = {}
        """Tokens of prompt and completion by the name of each request that the model worked on."""
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, code, content, **headers):
                self.send_response(code)
                for name, value in {"Content_Length": str(len(content)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.answer(200, json.dumps({"data": [{"id": "toy"}]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.headers.get("X-Client-Request-Id")
                with stub.lock:
                    stub.asked.append((self.path, body))
                    stub.keys.append(self.headers.get("Authorization"))
                    stub.times.append(time.monotonic())
                    drawn = (
                        stub.faults.pop(0) if stub.faults else stub.fault and stub.fault(name, body)
                    )
                    stub.under_way += 1
                    stub.most_under_way = max(stub.most_under_way, stub.under_way)
                try:
                    self.serve(name, body, drawn)
                except OSError:  # the client was killed
                    self.close_connection = True
                finally:
                    with stub.lock:
                        stub.under_way -= 1

            def serve(self, name, body, fault):
                if isinstance(fault, int):
                    return self.answer(fault, stub.said, Retry_After=stub.wait)
                if isinstance(fault, bytes):
                    return self.answer(200, fault)
                if fault == "hang":
                    time.sleep(hang_seconds)
                    self.close_connection = True
                    return None
                found = {
                    "usage": {"prompt_tokens": 10, "completion_tokens": 1},
                    **reply(self.path, body),
                }
                with stub.lock:
                    stub.billed[name] = tuple(found["usage"].values()) if found["usage"] else (0, 0)
                content = json.dumps(found).encode()
                if fault == "cut":
                    self.answer(200, content[: len(content) // 2], Content_Length=str(len(content)))
                    self.close_connection = True
                    return None
                return self.answer(200, content)

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


def said(text, finish="stop", tokens=(20, 8), **others):
    """An answer of a model that writes."""
    usage = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage, **others}


def odds(path, body):
    """Yes is the likelier, the more letters a are in the text."""
    text = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
    number = text.partition("Passage: ")[2].partition("\n")[0].count("a")
    return listed(path, {" Yes": -1.0, "yes": -2.0 + number / 10, "NO": -1.5, "Maybe": -4.0})
