"""What a forward pass keeps for the backward pass, counted on small ones.

Counting is exact where arithmetic over layers is not: dropout, the precision, heads and a score matrix that
an attention keeps all show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.errors import UserError


@dataclass(frozen=True)
class Kept:
    """Bytes that a forward pass keeps: of each token, and whatever the tokens."""

    per_token: int
    fixed: int = 0


def measure_kept(
    model: nn.Module,
    runs: Sequence[Callable[[], object]],
    tokens: Sequence[int],
    *,
    bf16: bool,
) -> Kept:
    """Run small forward passes as training would, and count; no random number is used up.

    Args:
        model: It is put into training mode for the time.
        runs: The passes, smallest first; each returns what holds its graph.
        tokens: Of each pass.
        bf16: Whether training computes in bf16.
    """
    device, training = next(model.parameters()).device, model.training
    model.train()
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
    ):
        counted = [_kept_by(run, model) for run in runs]
    model.train(training)
    slope = (counted[-1] - counted[0]) / max(1, tokens[-1] - tokens[0])
    if slope <= 0:  # one text is all there is
        return Kept(counted[-1] // tokens[-1])
    return Kept(round(slope), max(0, round(counted[-1] - slope * tokens[-1])))


def _kept_by(run: Callable[[], object], model: nn.Module) -> int:
    """Return the bytes of all storages that a pass keeps besides the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        result = run()  # held, so that no two storages may have one address
    del result
    return sum(storages.values())


def keep_one_activation_per_layer(model: nn.Module) -> None:
    """Switch transformers' own gradient checkpointing on in every backbone of a model.

    Raises:
        UserError: If the backbone does not know it.
    """
    backbones = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if not backbones:
        raise UserError(
            "trainer.gradient_checkpointing", "has no layers to act on", cure="Leave it out"
        )
    for backbone in backbones:
        if not backbone.supports_gradient_checkpointing:
            raise UserError(
                "trainer.gradient_checkpointing",
                "is not possible with this backbone",
                got=type(backbone).__name__,
                cure="Use rematerialize, which works with every backbone",
            )
        # transformers 5.23 renamed it; drop the getattr when that is the oldest supported.
        name = "activation_checkpointing_enable"
        enable = getattr(backbone, name, None) or backbone.gradient_checkpointing_enable
        enable({"use_reentrant": False})
