"""Chunks to write queries for, a server that writes them, and one that is as bad as servers are."""

import hashlib
import json
import os
import random
import signal
from collections import Counter
from itertools import count

from completions_stub import CompletionsStub, said
from forks import fork

from embedtrain.data.documents.document import Chunk
from embedtrain.encoding.language import endpoint
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.encoding.language.settings import EndpointSettings
from embedtrain.synthesis.language_settings import LanguageConfig
from embedtrain.synthesis.language_writer import open_language_writer

FAULTS = (429, 500, "hang", "cut", b"<html>Bad gateway</html>", "schema")
"""Each comes to one request in twenty."""
SHARE = 0.05


def chunks(number, start=0):
    """Chunks that differ in a number, two of a document."""
    return [
        Chunk(
            f"d{n // 2}.md#{n % 2}", f"d{n // 2}.md", f"Title {n // 2}", "",
            f"The pump of plant {n} was made by the works in the town and is on since the year {n}.", 0, 1,
        )
        for n in range(start, start + number)
    ]  # fmt: skip


def number_of(body):
    """The number of the chunk that a request is about."""
    return body["messages"][-1]["content"].partition("plant ")[2].partition(" ")[0]


def opened(stub, folder, *, like=None, concurrency=4, timeout=5.0, price=None, **keys):
    """A writer at a stub."""
    settings = EndpointSettings(
        concurrency=concurrency, timeout_seconds=timeout, served_name="toy", price=price
    )
    return open_language_writer(stub.url, LanguageConfig(endpoint=settings, **keys), folder, like)


def write_text(path, body):
    """Answer with a query that names the chunk and how it was drawn."""
    return said(f"who made pump {number_of(body)} at {body['temperature']}")


def expected_json(chunk):
    number = chunk.text.partition("plant ")[2].partition(" ")[0]
    return [f"who made pump {number} of {slot}" for slot in (1, 2)]


def write_json(path, body):
    """Answer with two queries, at a price that depends on the chunk."""
    number = number_of(body)
    entries = [{"slot": slot, "text": f"who made pump {number} of {slot}"} for slot in (2, 1)]
    return said(
        json.dumps({"queries": entries}), tokens=(100 + int(number) % 7, 20 + int(number) % 5)
    )


def draw(name):
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class BadServer(CompletionsStub):
    """Writes JSON, and fails in each of six ways one time in twenty, by the name of the request."""

    def __init__(self, hang_seconds):
        self.drawn = Counter()
        self.number = count()
        super().__init__(self.write, self.drawn_fault, hang_seconds)

    def drawn_fault(self, name, body):
        turn, rest = divmod(next(self.number), 8)
        # Each kind once for certain, so that few requests see all of them.
        place = turn if rest == 0 and turn < len(FAULTS) else int(draw(name) / SHARE)
        kind = FAULTS[place] if place < len(FAULTS) else None
        self.drawn[str(kind)] += 1
        if kind == "schema":
            body["is_wrong"] = True
            return None
        return kind

    def write(self, path, body):
        found = write_json(path, body)
        if "is_wrong" in body:
            # Now the answer itself, now what the model says in it.
            if body["temperature"]:
                del found["choices"]
            else:
                found["choices"][0]["message"]["content"] = '{"answers": 7}'
        return found


class Killed(RequestStore):
    """A store whose process is killed when it has written so many lines: before one, in its middle, or behind it."""

    lines_left = 0
    how = "before"

    def _append(self, line):
        type(self).lines_left -= 1
        if type(self).lines_left:
            return super()._append(line)
        if self.how == "behind":
            super()._append(line)
        if self.how == "within":
            super()._append({"key": "", "request": ""})  # opens the file
            self._file.write(json.dumps(line).encode()[:40])
            self._file.flush()
        return os.kill(os.getpid(), signal.SIGKILL)


def write_all(url, number, folder, monkeypatch, kill=None):
    """Write all queries, in this process; die at ``kill``, a number of lines and how."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    if kill is not None:
        Killed.lines_left, Killed.how = kill
        monkeypatch.setattr("embedtrain.synthesis.language_writer.RequestStore", Killed)
    settings = EndpointSettings(concurrency=8, timeout_seconds=0.4, served_name="toy", price=2.0)
    config = LanguageConfig(format="json", endpoint=settings)
    writer = open_language_writer(url, config, folder)
    return list(writer.write(chunks(number))), writer.report()


def stress(number, kills, folder, monkeypatch, seed=0):
    """Kill the writing so many times, let it end, and check what is there; return figures."""
    generator = random.Random(seed)
    with BadServer(hang_seconds=0.8) as server:
        for place in range(kills):
            share = (
                2.6 * number / (kills + 1)
            )  # lines per request: sent, and what came back, and failures
            kill = (
                int(share * generator.uniform(0.5, 1)) + 1,
                ("before", "within", "behind")[place % 3],
            )
            done = fork(lambda kill=kill: write_all(server.url, number, folder, monkeypatch, kill))
            assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
        for _ in range(4):
            found, report = write_all(server.url, number, folder, monkeypatch)
            if all(one.finish == "stop" for one in found):
                break
    expected = [query for chunk in chunks(number) for query in expected_json(chunk)]
    assert [one.query for one in found] == expected
    return {**check_account(folder, server, report), "faults": dict(server.drawn), "kills": kills}


def check_account(folder, server, report):
    """Compare what the store says was sent and spent with what the server knows, request by request."""
    lines = []
    for path in sorted((folder / "requests").glob("part-*.jsonl")):
        content = path.read_bytes().split(b"\n")
        lines += [json.loads(line) for line in content[:-1]]
    lines = [line for line in lines if line["request"]]
    answered, sent, settled = set(), set(), {}
    for line in lines:
        key = line["request"].partition(":")[0]
        if "most" in line:
            assert line["request"] not in sent, "a name is given once"
            assert key not in answered, "what has an answer is not asked again"
            sent.add(line["request"])
            continue
        if "text" in line:
            assert line["key"] not in answered, "an answer is kept once"
            answered.add(line["key"])
        if "prompt_tokens" in line:
            settled[line["request"]] = (line["prompt_tokens"], line["completion_tokens"])
    server_total = sum(map(sum, server.billed.values()))
    assert {*server.billed} <= sent, "whatever the server worked on is known"
    worked = {name: cost for name, cost in settled.items() if cost != (0, 0)}
    assert all(server.billed[name] == cost for name, cost in worked.items())
    known = sum(map(sum, worked.values()))
    lost = [cost for name, cost in server.billed.items() if name not in settled]
    assert known + sum(map(sum, lost)) == server_total
    assert report["prompt_tokens"] + report["completion_tokens"] == known
    assert report["requests"] == len(sent)
    assert report["unknown_requests"] == len(sent) - len(settled)
    assert report["unknown_tokens_at_most"] >= sum(map(sum, lost))
    return {
        "sent": len(sent), "kept": len(answered), "tokens_known": known, "tokens_of_server": server_total,
        "requests_unknown": report["unknown_requests"], "tokens_of_those": sum(map(sum, lost)),
        "tokens_of_those_at_most": report["unknown_tokens_at_most"],
    }  # fmt: skip
