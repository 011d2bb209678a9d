"""Train embedding models for dense and multi-vector retrieval.

The public names load on first use, so that importing the package costs nothing.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedtrain.api.evaluation import evaluate
    from embedtrain.api.model import Index, Model, load
    from embedtrain.api.training import check, export, mine, resume, train
    from embedtrain.encoding.texts import encode_texts
    from embedtrain.errors import UserError
    from embedtrain.models.build import load_dense
    from embedtrain.objectives.base import Objective
    from embedtrain.recipe.retrieval import Recipe, load_recipe
    from embedtrain.workflows.evaluate.model import measure

if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
    # Where deepspeed is installed, accelerate imports it, and without a GPU it warns at every command.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

# oneDNN keeps the code of 1,024 products and torch's bridge to it as many again with what they work in, up to a megabyte
# each; packed batches are of ever new shapes, so hardly one is met again. Both ask when they first compute.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
os.environ.setdefault("LRU_CACHE_CAPACITY", "16")

__version__ = "0.1.0"

_HOMES = {
    "embedtrain.api.evaluation": ("evaluate",),
    "embedtrain.api.model": ("Index", "Model", "load"),
    "embedtrain.api.training": ("check", "export", "mine", "resume", "train"),
    "embedtrain.encoding.texts": ("encode_texts",),
    "embedtrain.errors": ("UserError",),
    "embedtrain.models.build": ("load_dense",),
    "embedtrain.objectives": ("Objective",),
    "embedtrain.recipe.retrieval": ("Recipe", "load_recipe"),
    "embedtrain.workflows.evaluate.model": ("measure",),
}
"""The module of each public name; no module of this folder may have the name of one."""

__all__ = [
    "Index",
    "Model",
    "Objective",
    "Recipe",
    "UserError",
    "check",
    "encode_texts",
    "evaluate",
    "export",
    "load",
    "load_dense",
    "load_recipe",
    "measure",
    "mine",
    "resume",
    "train",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
