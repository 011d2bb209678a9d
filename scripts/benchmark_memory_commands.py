"""Whether the memory of commands that encode grows with the number of batches.

    python scripts/benchmark_memory_commands.py --texts 2000
    python scripts/benchmark_memory_commands.py --json memory_commands.json

Each command runs in a process of its own with one thread, on texts of random lengths. `start` is the anonymous memory
at the first batch, `tenth` the most in the tenth of the batches that ends at 10 % of them, `last` in the last tenth,
`peak` the most of all, also after the last batch; `grown` is the share that the last took more than the first.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmark_measure import MIB, apart, count, write_figures
from benchmark_memory import NARROW, WORDS, Watch, show, write_model
from exit_codes import run_main

COMMANDS = {
    "encode": "encode MODEL DATA/corpus.jsonl --output OUT/vectors.npy",
    "mine": "mine MODEL --data DATA --split test --output OUT/mined num_negatives=4 near_duplicates=false",
    "evaluate": "evaluate MODEL --data DATA --output OUT/result.json --no-efficiency",
}
TEXTS_PER_QUERY = 20


def write_task(folder: Path, size: int, draw: random.Random) -> None:
    """Write a BEIR folder with so many documents, and a query for every so many of them."""

    def text(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    (folder / "qrels").mkdir(parents=True)
    queries = range(size // TEXTS_PER_QUERY)
    for name, most, rows in (("corpus", 40, range(size)), ("queries", 12, queries)):
        lines = ({"_id": str(row), "title": "", "text": f"{row} {text(most)}"} for row in rows)
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    judgments = "".join(f"{row}\t{row * TEXTS_PER_QUERY}\t1\n" for row in queries)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judgments)


def run_command(name: str, size: int) -> dict[str, float]:
    """Run a command in this process and return what was measured."""
    from embedtrain.cli.main import app
    from embedtrain.models.dense.encoder import DenseEncoder

    watch, states = Watch(), DenseEncoder.states

    def counted(encoder: DenseEncoder, *arguments: object, **settings: object) -> object:
        if not watch.start:
            watch.begin()
        found = states(encoder, *arguments, **settings)  # type: ignore[arg-type]
        watch.step_done()
        return found

    DenseEncoder.states = counted  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        places = {"MODEL": write_model(Path(folder) / "model", NARROW)}
        places |= {"DATA": f"{folder}/data", "OUT": f"{folder}/out"}
        os.environ["EMBEDTRAIN_CACHE"] = f"{folder}/cache"
        write_task(Path(folder) / "data", size, random.Random(0))
        words = COMMANDS[name]
        for place, path in places.items():
            words = words.replace(place, path)
        app(words.split(), standalone_mode=False)
        watch.step_done()  # what comes after the last batch
    return figures_of(watch)


def figures_of(watch: Watch) -> dict[str, float]:
    """Return the figures of the table."""
    *peaks, after = watch.peaks
    tenth = max(1, len(peaks) // 10)
    first, last = max(peaks[:tenth]), max(peaks[-tenth:])
    held = {"start": watch.start, "tenth": first, "last": last, "peak": max(*peaks, after)}
    return {
        "batches": float(len(peaks)),
        **{name: size / MIB for name, size in held.items()},
        "grown": last / first - 1,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every command, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--texts", type=count, default=60_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=COMMANDS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        found = run_command(options.one, options.texts)
        sys.stdout.write("\n" + json.dumps(found) + "\n")
        return 0
    texts = ("--texts", options.texts)
    results = apart(Path(__file__), {name: ["--one", name, *texts] for name in options.commands})
    show(results)
    if options.json:
        write_figures(options.json, results)
    return 0


if __name__ == "__main__":
    run_main(main)
