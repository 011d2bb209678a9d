"""Models that ``compare_small.py`` trains, for bits and as floats: from pairs, and from their own vectors of plain texts."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from plain_texts import halves
from trained_runs import train_once

from embedtrain.models.build import load_dense
from embedtrain.models.edits.rotate import rotate_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import write_model

TRAINED = ("floats trained", "bits trained", "floats distilled", "bits distilled")
"""For bits, and as many steps of the same without them."""
PAIRS = {"name": "info_nce", "temperature": 0.05}
OWN = {"name": "embedding_distillation", "kind": "similarity"}
BITS: dict[str, Any] = {"name": "outputs", "quantize": "binary", "scoring": "both"}


def trained(arguments: argparse.Namespace, name: str, axes: torch.Tensor) -> Path:
    """Train one of :data:`TRAINED` once.

    What is distilled starts from ``axes``, a rotation towards signs, and learns how its floats compared the beginning and
    the rest of a text with those of other texts; what is trained learns from pairs of descriptions.
    """
    bits, distilled = name.startswith("bits"), name.endswith("distilled")
    inner, added = PAIRS, {}
    place, rows = arguments.model, arguments.data / "pairs" / "debian_packages.train.jsonl.gz"
    if distilled:
        inner, added = OWN, {"guide": {"model": arguments.model}}
        place, rows = str(_turned(arguments, axes)), _halves(arguments)
    sizes = {"float_weight": arguments.float_weight} if distilled else {"matryoshka": [192]}
    side = {"length": arguments.length}
    overrides = {
        "description": "Output quantisation in training.",
        "data": {"sources": [{"path": str(rows)}], "cache": str(arguments.output / "cache")},
        "model": {"backbone": place, "query": side, "document": side},
        "objective": BITS | sizes | {"inner": inner} if bits else inner,
        "trainer": {
            "steps": arguments.steps, "batch_size": arguments.batch_size, "chunk_tokens": 4096,
            "learning_rate": arguments.learning_rate, "precision": arguments.precision, "seed": 0,
        },
    } | added  # fmt: skip
    return train_once(load_recipe(overrides), arguments.output / name.replace(" ", "-"))


def _turned(arguments: argparse.Namespace, axes: torch.Tensor) -> Path:
    """Write the model with the rotation behind it, once."""
    place: Path = arguments.output / "turned"
    if not place.is_dir():
        model = load_dense(arguments.model)
        rotate_encoder(model, axes)
        write_model(model, place)
    return place


def _halves(arguments: argparse.Namespace) -> Path:
    """Write rows of a text's beginning and the rest of it, once."""
    path: Path = arguments.output / "halves.jsonl"
    if not path.is_file():
        rows = halves(arguments.data, arguments.steps * arguments.batch_size, arguments.letters)
        lines = [json.dumps({"query": first, "positive": rest}) for first, rest in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
