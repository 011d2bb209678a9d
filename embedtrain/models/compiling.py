"""torch.compile for the layers of a backbone, one layer at a time: all of them share what is compiled."""

import os
import shutil

import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.text_model import TextModel

COMPILERS = ("g++", "c++", "clang++", "cl")


def compile_layers(model: nn.Module) -> None:
    """Compile every transformer layer in place, for any number of texts and tokens.

    Names in checkpoints stay as they are. Chunks are padded: on a CPU packed attention runs one product per group
    of equally long texts, and each grouping would be compiled anew.

    Raises:
        UserError: If the model insists on packed chunks, has no list of layers, or there is no compiler.
    """
    encoders = [part for part in model.modules() if isinstance(part, TextModel)]
    for encoder in encoders:
        if encoder.packing == "packed" or encoder.own_positions is not None:
            raise UserError(
                "trainer.compile",
                "needs padded chunks",
                got="packed",
                cure="Set model.packing: padded, or leave compile out",
            )
    layers = [
        layer
        for encoder in encoders
        for part in encoder.backbone.modules()
        if isinstance(part, nn.ModuleList)
        for layer in part
    ]
    if not encoders or not layers:
        raise UserError("trainer.compile", "has no layers to act on", cure="Leave it out")
    has_compiler = "CXX" in os.environ or any(map(shutil.which, COMPILERS))
    if not torch.cuda.is_available() and not has_compiler:
        raise UserError(
            "trainer.compile",
            "needs a C++ compiler on CPU",
            got="none of " + ", ".join(COMPILERS),
            cure="Install one, name it in the variable CXX, or leave compile out",
        )
    for encoder in encoders:
        encoder.packing = "padded"
    for layer in layers:
        layer.compile(dynamic=True)
