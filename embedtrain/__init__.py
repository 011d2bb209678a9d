"""Train embedding models for dense and multi-vector retrieval.

The public names load on first use, so that importing the package costs nothing.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedtrain.encoding.texts import encode_texts
    from embedtrain.models.build import load_dense
    from embedtrain.recipe.retrieval import load_recipe
    from embedtrain.release.export import export
    from embedtrain.workflows.evaluate.model import measure
    from embedtrain.workflows.train import resume, train

if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
    # Where deepspeed is installed, accelerate imports it, and without a GPU it warns at every command.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

__version__ = "0.1.0"

_HOME = {
    "encode_texts": "embedtrain.encoding.texts",
    "export": "embedtrain.release.export",
    "load_dense": "embedtrain.models.build",
    "load_recipe": "embedtrain.recipe.retrieval",
    "measure": "embedtrain.workflows.evaluate.model",
    "resume": "embedtrain.workflows.train",
    "train": "embedtrain.workflows.train",
}

__all__ = [
    "encode_texts",
    "export",
    "load_dense",
    "load_recipe",
    "measure",
    "resume",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
