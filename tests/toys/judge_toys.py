"""Mined rows by hand, in which the name of a text tells what it is, and judges that read the names."""

import json
from pathlib import Path

import numpy as np

from embedtrain.encoding.pair_work import PairWork
from embedtrain.mining.judgement.settings import JudgeConfig

KINDS = {
    "positive": 1.0,
    "close": 0.9,
    "far": 0.5,
    "hidden": 1.02,
    "hard": 0.97,
    "maybe": 0.99,
}
"""What each query's documents are called, with their scores: the last three were kept out."""
NAMES = tuple(KINDS)
NUMBER = 40
"""Queries of the rows that most tests judge."""


def document(kind: str, number: int) -> str:
    return f"{kind} document of {number}"


def write_mined(
    folder: Path, num_queries: int, *, shared: str | None = None, rejected: bool = True
):
    """Write what `embedtrain mine` would; with ``shared`` every query's hidden document is this text."""
    folder.mkdir(parents=True)
    rows, kept_out = [], []
    for number in range(num_queries):
        texts = {kind: document(kind, number) for kind in NAMES}
        ids = {kind: f"{kind}{number}" for kind in NAMES}
        if shared is not None:
            texts["hidden"], ids["hidden"] = shared, "shared"
        taken = ("positive", "close", "far")
        row = {
            "query_id": f"q{number}",
            "query": f"query {number}",
            "positives": [texts["positive"]],
            "negatives": [texts["close"], texts["far"]],
            "positive_ids": [ids["positive"]],
            "negative_ids": [ids["close"], ids["far"]],
            "scores": [KINDS[kind] for kind in taken],
        }
        found = [
            {"id": ids[kind], "text": texts[kind], "score": KINDS[kind], "rank": rank,
             "source": "dense", "reason": "score"}
            for rank, kind in enumerate(("hidden", "maybe", "hard"), 1)
        ]  # fmt: skip
        rows.append(json.dumps(row) + "\n")
        kept_out.append(json.dumps({"query_id": f"q{number}", "rejected": found}) + "\n")
    (folder / "train.jsonl").write_text("".join(rows))
    if rejected:
        (folder / "rejected.jsonl").write_text("".join(kept_out))
    return folder


class StubJudge:
    """Gives the log-odds that ``says(query, document)`` returns, and remembers what it was asked."""

    precision = "fp32"

    def __init__(self, says, name: str = "stub"):
        self.says, self.name, self.asked, self.work = says, name, [], PairWork()

    def key(self) -> str:
        return self.name

    def logits(self, pairs):
        self.asked += pairs
        self.work.pairs += len(pairs)
        self.work.tokens += 10 * len(pairs)
        return np.array([float(self.says(*pair)) for pair in pairs], dtype=np.float64)


def oracle(query: str, text: str) -> float:
    """Knows positives and hidden ones of a query, and is in two minds about what is called maybe."""
    kind, own = text.split()[0], text.split()[-1] == query.split()[-1]
    if own and kind == "maybe":
        return 0.5
    return 6.0 if own and kind in ("positive", "hidden") else -6.0


def config(**settings) -> JudgeConfig:
    """Settings of a judge that is given in memory."""
    return JudgeConfig.model_validate({"judge": {"model": "stub"}, **settings})


def rows_of(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]
