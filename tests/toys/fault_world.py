"""A small world of files that every command can work on, and the commands of the matrix of faults."""

import json
import pkgutil
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from forks import fork

RECIPE = """
description: A toy.
model: {backbone: bert, pooling: mean, query: {length: 12}, document: {length: 16}}
objective: {name: info_nce}
data: {sources: [{path: pairs.jsonl}]}
validation: {path: beir, split: dev, every_steps: 2}
evaluation: {path: beir, split: test}
trainer: {steps: 4, batch_size: 8, learning_rate: 1.0e-3, checkpoint_every: 2, precision: fp32}
"""
RERANK = """
description: A toy.
model: {kind: cross_encoder, backbone: bert, query_length: 12, length: 40}
objective: {name: binary_cross_entropy}
data: {sources: [{path: mined.jsonl}]}
trainer: {steps: 4, batch_size: 8, learning_rate: 1.0e-3, checkpoint_every: 2, precision: fp32}
"""
PRETRAIN = """
description: A toy.
model: {kind: masked_autoencoder, backbone: bert}
objective: {name: retromae}
data: {sources: [{path: texts.jsonl}], length: 16}
trainer: {steps: 2, batch_size: 8, learning_rate: 1.0e-3, checkpoint_every: 1, precision: fp32}
"""
MODEL = ("model/*.json", "model/*.safetensors", "model/*/config.json")
BACKBONE = ("bert/*.json", "bert/*.safetensors")
BEIR = ("beir/*.jsonl", "beir/qrels/test.tsv")


@dataclass(frozen=True)
class Command:
    """A command of the matrix.

    Args:
        name: What the table calls it.
        words: The command line, below the world's folder.
        reads: Patterns of the files that it reads.
        writes: The file or folder that it writes; empty if none.
        keeps: A failed or killed one leaves its work, and the same command goes on with it.
    """

    name: str
    words: str
    reads: tuple[str, ...]
    writes: str = ""
    keeps: bool = False


COMMANDS = [
    Command(
        "train",
        "train recipe.yaml --output out",
        ("recipe.yaml", "pairs.jsonl", *BACKBONE, "beir/qrels/dev.tsv"),
        "out",
        keeps=True,
    ),
    Command("resume", "train --resume run", ("run/*.*", "run/checkpoints/*"), keeps=True),
    Command(
        "pretrain",
        "train pretrain.yaml --output out",
        ("pretrain.yaml", "texts.jsonl", *BACKBONE),
        "out",
        keeps=True,
    ),
    Command(
        "train reranker",
        "train rerank.yaml --output out",
        ("rerank.yaml", "mined.jsonl", *BACKBONE),
        "out",
        keeps=True,
    ),
    Command("check", "check recipe.yaml", ("recipe.yaml", "pairs.jsonl", "bert/config.json")),
    Command("init", "init pairs.jsonl --output out.yaml", ("pairs.jsonl",), "out.yaml"),
    Command(
        "mine",
        "mine model --data beir --split test --output out num_negatives=2 depth=10",
        (*MODEL, *BEIR),
        "out",
        keeps=True,
    ),
    Command(
        "score",
        "score model --data pairs.jsonl --output out.jsonl",
        (*MODEL, "pairs.jsonl"),
        "out.jsonl",
        keeps=True,
    ),
    Command(
        "score language",
        "score language --as likelihood --data mined.jsonl --output out.jsonl",
        ("language/*.json", "language/*.safetensors", "language/*.jinja", "mined.jsonl"),
        "out.jsonl",
        keeps=True,
    ),
    Command("search", "search model red --data beir", (*MODEL, "beir/corpus.jsonl")),
    Command("search late", "search late red --data texts.jsonl", ("late/*.*", "late/*/*.*")),
    Command(
        "encode", "encode model texts.jsonl --output out.npy", (*MODEL, "texts.jsonl"), "out.npy"
    ),
    Command("encode parquet", "encode model t.parquet --output out.npy", ("t.parquet",), "out.npy"),
    Command("encode gz", "encode model t.jsonl.gz --output out.npy", ("t.jsonl.gz",), "out.npy"),
    Command(
        "encode shards",
        "encode model texts.txt --output out --rows-per-shard 64",
        (*MODEL, "texts.txt"),
        "out",
        keeps=True,
    ),
    Command(
        "evaluate",
        "evaluate model --data beir --output out.json --no-efficiency",
        (*MODEL, *BEIR),
        "out.json",
    ),
    Command(
        "evaluate rerank",
        "evaluate bm25 --rerank cross --top 3 --data beir --output out.json --no-efficiency",
        ("cross/*.json", "cross/*.safetensors", *BEIR),
        "out.json",
    ),
    Command(
        "compare",
        "compare base.json mine.json --output out.json",
        ("base.json", "mine.json"),
        "out.json",
    ),
    Command("pareto", "pareto base.json mine.json --plot out.svg", ("mine.json",), "out.svg"),
    Command(
        "report run",
        "report run --output out.html",
        ("run/*.*", "run/metrics.csv"),
        "out.html",
    ),
    Command(
        "report",
        "report mine.json --baseline base.json --data beir --output out.html",
        ("mine.json", *BEIR),
        "out.html",
    ),
    Command("export", "export run --output out", ("run/*.*", "run/model/*.*"), "out"),
    Command(
        "merge",
        "merge model bert2 --output out --weight 0.5 --weight 0.5",
        (*MODEL, "bert2/*.json", "bert2/*.safetensors"),
        "out",
    ),
    Command("rotate", "rotate model pairs.jsonl --output out", (*MODEL, "pairs.jsonl"), "out"),
    Command("probe", "probe model perturbations --data beir --output out.json", BEIR, "out.json"),
    Command(
        "adapt",
        "adapt --queries q.npy --documents d.npy --pairs pairs.tsv --output out steps=5",
        ("q.npy", "d.npy", "pairs.tsv"),
        "out",
    ),
    Command(
        "static",
        "static bert texts.txt --output out dim=8 steps=5",
        (*BACKBONE, "texts.txt"),
        "out",
    ),
    Command(
        "tokenizer",
        "tokenizer texts.jsonl --vocabulary-size 300 --output out",
        ("texts.jsonl",),
        "out",
    ),
]


def embedtrain(words: Sequence[str], folder: Path, **options: object) -> tuple[int, str, str]:
    """Run the command line in a fork, below ``folder``; return its exit code and what it said."""
    done = fork(lambda: run_here(words), cwd=folder, **options)  # type: ignore[arg-type]
    return done.returncode, done.stdout, done.stderr


def run_here(words: Sequence[str]) -> None:
    """Run the command line as its script does, without the tests' checks of types."""
    from jaxtyping import config

    from embedtrain.cli.main import main

    config.update("jaxtyping_disable", True)
    sys.argv = ["embedtrain", *words]
    main()


def import_everything() -> None:
    """Import what commands import, so that a fork need not: imports would be most of a case's time."""
    import embedtrain

    names = [one.name for one in pkgutil.walk_packages(embedtrain.__path__, "embedtrain.")]
    for name in (*names, "peft", "sentence_transformers"):
        if not name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed
                import_module(name)


def build_world(folder: Path, models: Mapping[str, str], pairs: Path, beir: Path) -> Path:
    """Make every file that a command reads; what commands make is made by them."""
    import_everything()
    for name, model in models.items():
        shutil.copytree(model, folder / name)
    shutil.copytree(beir, folder / "beir")
    shutil.copy(pairs, folder / "pairs.jsonl")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "pretrain.yaml").write_text(PRETRAIN)
    (folder / "rerank.yaml").write_text(RERANK)
    texts = [json.loads(line)["positive"] for line in pairs.read_text().splitlines()] * 4
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(rows)
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    _write_packed(folder, texts, rows)
    rng = np.random.default_rng(0)
    np.save(folder / "q.npy", rng.normal(size=(40, 8)).astype(np.float32))
    np.save(folder / "d.npy", rng.normal(size=(40, 8)).astype(np.float32))
    (folder / "pairs.tsv").write_text("".join(f"{row}\t{row}\n" for row in range(40)))
    mined = [json.loads(line) for line in pairs.read_text().splitlines()]
    answers = [row["positive"] for row in mined]
    for place, row in enumerate(mined):
        row["negatives"] = [answers[place - 1], answers[place - 2]]
    (folder / "mined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mined))
    for words in (
        "train recipe.yaml --output run",
        "evaluate bert --data beir --output base.json",
        "evaluate run/model --data beir --output mine.json",
        "export run --output model",
        "export run --output bert2",
    ):
        code, _, said = embedtrain(words.split(), folder)
        assert code == 0, f"{words}: {said}"
    return folder


def _write_packed(folder: Path, texts: list[str], rows: str) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts}), folder / "t.parquet")
    (folder / "t.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
