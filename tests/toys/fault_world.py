"""A small world of files that every command can work on."""

import json
import pkgutil
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from document_toys import write_folder
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
SPARSE = """
description: A toy.
model: {kind: sparse, backbone: masked, query: {length: 12}, document: {length: 16}}
objective:
  name: sparsity
  inner: {name: info_nce, temperature: 1.0}
  query: {weight: 3.0e-4}
  document: {weight: 1.0e-4}
data: {sources: [{path: pairs.jsonl}]}
trainer: {steps: 4, batch_size: 8, learning_rate: 1.0e-3, checkpoint_every: 2, precision: fp32}
"""
TUNE = f"""{RECIPE}
tune: {{space: [{{key: trainer.learning_rate, low: 1.0e-4, high: 1.0e-2, log: true}}]}}
"""
RECIPES = {
    "recipe": RECIPE,
    "rerank": RERANK,
    "pretrain": PRETRAIN,
    "sparse": SPARSE,
    "tune": TUNE,
}
MADE = (
    "train recipe.yaml --output run",
    "evaluate bert --data beir --output base.json",
    "evaluate run/model --data beir --output mine.json",
    "export run --output model",
    "export run --output bert2",
    "mine model --data beir --split test --output kept num_negatives=2 depth=10 num_rejected=3",
    "load model beir --into jsonl://./files",
    "load model beir --into lancedb://./lance/docs",
    "load model beir --into qdrant://./qdrant/docs",
)
"""Commands that make what other commands read."""


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
    for name in (*names, "peft", "qdrant_client", "sentence_transformers"):
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
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    forms = [{"_id": f"q{number}", "form": "short", "text": "a cat"} for number in range(10)]
    lines = "".join(json.dumps(row) + "\n" for row in forms)
    (folder / "beir" / "query_forms.jsonl").write_text(lines)
    texts = [json.loads(line)["positive"] for line in pairs.read_text().splitlines()] * 4
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "token.txt").write_text("letters-and-digits-1\n")
    (folder / "texts.jsonl").write_text(rows)
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    _write_packed(folder, texts, rows)
    write_folder(folder / "notes", 30)
    rng = np.random.default_rng(0)
    np.save(folder / "q.npy", rng.normal(size=(40, 8)).astype(np.float32))
    np.save(folder / "d.npy", rng.normal(size=(40, 8)).astype(np.float32))
    (folder / "pairs.tsv").write_text("".join(f"{row}\t{row}\n" for row in range(40)))
    mined = [json.loads(line) for line in pairs.read_text().splitlines()]
    answers = [row["positive"] for row in mined]
    for place, row in enumerate(mined):
        row["negatives"] = [answers[place - 1], answers[place - 2]]
    (folder / "mined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mined))
    many = [
        {"query": f"red bird {number}", "positive": f"a {text} {number}"}
        for number, text in enumerate(texts[:120])
    ]
    (folder / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    for words in MADE:
        code, _, said = embedtrain(words.split(), folder)
        assert code == 0, f"{words}: {said}"
    return folder


def _write_packed(folder: Path, texts: list[str], rows: str) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts}), folder / "t.parquet")
    (folder / "t.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
