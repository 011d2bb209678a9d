r"""A stand-in for a language model that writes what people wrote: shows what `synth` loses between its writer and training.

    python scripts/held_writer.py --data DATA --sets scifact --output runs/held
    python scripts/compare_synthesis.py --data DATA --sets scifact --arms written people --written runs/held --shares \
        --steps 25 --seeds 0

A server on this machine is asked by ``embedtrain synth --llm`` for queries of every document with a training judgment, and
answers with the queries that people asked of it. FOLDER/SET/train.jsonl is what came through, FOLDER/SET/people.jsonl the same
judgments read straight from the set: trained alike, both must reach the same.
"""

import argparse
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from exit_codes import run_main

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.sources import load_task
from embedtrain.synthesis.prompts.wordings import JSON_WANTED, PASSAGE
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.synthesize import synthesize

Queries = dict[str, list[str]]
"""What people asked of each document, by its id or its text."""


def words_of(text: str) -> str:
    """Return a text as it is known by, whatever its blanks."""
    return " ".join(text.split())


@contextmanager
def serving(asked: Queries) -> Iterator[str]:
    """Serve the queries of texts as an OpenAI-compatible address, which is yielded."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"].partition(PASSAGE)[2]
            own = asked[words_of(prompt.rpartition(JSON_WANTED)[0])]
            entries = [{"slot": slot, "text": text} for slot, text in enumerate(own, 1)]
            message = {"role": "assistant", "content": json.dumps({"queries": entries})}
            usage = {"prompt_tokens": 0, "completion_tokens": 0}
            choice = {"message": message, "finish_reason": "stop"}
            self.answer({"choices": [choice], "usage": usage})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1#people"
    finally:
        server.shutdown()
        server.server_close()


def asked_of(task: RetrievalTask) -> Queries:
    """Return the queries of each judged document, in the order of the corpus."""
    texts = dict(zip(task.query_ids, task.queries, strict=True))
    found: Queries = {}
    for query, judged in task.qrels.items():
        for document in judged:
            found.setdefault(document, []).append(texts[query])
    return {document: found[document] for document in task.document_ids if document in found}


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as JSON, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def config_of(most: int) -> SynthesisConfig:
    """Return settings under which each document is a chunk, asked for so many queries, and no reader is in the way."""
    return SynthesisConfig.model_validate(
        {
            "chunks": {"length": None, "min_characters": 0},
            "per_chunk": most,
            "per_document": most,
            "round_trip": {"reader": None},
            "log_probability": 0.0,
            "split": {"dev": 0.01, "test": 0.0},
            "language": {"format": "json", "per_chunk": most, "context": 100_000},
        }
    )


def people_rows(
    asked: Queries, positives: dict[str, str], left_out: set[str]
) -> list[dict[str, object]]:
    """Return the judgments of all but some documents as training rows; a query of several has a list of positives."""
    found: dict[str, dict[str, None]] = {}
    for document, queries in asked.items():
        for query in queries if document not in left_out else ():
            found.setdefault(query, {})[positives[document]] = None
    rows = ((query, list(texts)) for query, texts in found.items())
    return [
        {"query": query, "positive": texts if len(texts) > 1 else texts[0]} for query, texts in rows
    ]


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the texts of a training row."""
    positive = row["positive"]
    texts = [row["query"], *([positive] if isinstance(positive, str) else positive)]
    return tuple(map(words_of, texts))


def run(data: Path, name: str, folder: Path) -> None:
    """Let the stand-in write for a set, and say what came through."""
    task = load_task(str(data / "retrieval" / name), "train")
    asked, positives = asked_of(task), dict(zip(task.document_ids, task.documents, strict=True))
    corpus = {
        row["_id"]: row for _, row in read_objects(data / "retrieval" / name / "corpus.jsonl")
    }
    write_lines(folder / "documents.jsonl", [corpus[document] for document in asked])
    by_text = {words_of(corpus[one]["text"]): queries for one, queries in asked.items()}
    config = config_of(max(map(len, asked.values())))
    with serving(by_text) as address:
        done = synthesize(str(folder / "documents.jsonl"), folder / name, config, llm=address)
    candidates = [row for _, row in read_objects(done.candidates) if row["query"]]
    held = {row["document"] for row in candidates if row["split"] != "train"}
    rows = people_rows(asked, positives, held)
    write_lines(folder / name / "people.jsonl", rows)
    came = Counter(row["taken_by"] or "kept" for row in candidates if row["split"] == "train")
    through = [row for _, row in read_objects(done.training)]
    known = {key_of(row) for row in rows}
    same = sum(key_of(row) in known for row in through)
    print(
        f"{name}: {len(rows)} queries of people, {len(through)} came through, {same} of them with the same texts; "
        f"of the pairs {dict(came)}"
    )


def main() -> None:
    """Do each set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=["scifact"])
    parser.add_argument("--output", type=Path, default=Path("runs/held"))
    given = parser.parse_args()
    for name in given.sets:
        run(given.data, name, given.output)


if __name__ == "__main__":
    run_main(main)
