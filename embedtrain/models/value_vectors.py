"""The value vectors of a backbone's last layer: what its attention would hand on of each token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.exits import layer_stacks

ALONE = ("v_proj", "value", "v_lin", "v")
"""What families call the matrix that makes values."""
THIRD = ("Wqkv", "c_attn")
"""What they call one that makes queries, keys and values, in this order."""


def value_projection(backbone: Any) -> tuple[Any, bool]:  # noqa: ANN401 - transformers is untyped
    """Return what makes the values of the last layer's attention, and whether it makes queries and keys too.

    Raises:
        UserError: If the family's is not known.
    """
    owner, name = layer_stacks(backbone)[-1]
    last = getattr(owner, name)[-1]
    for known in (ALONE, THIRD):
        for path, module in last.named_modules():
            if path.rpartition(".")[2] in known and hasattr(module, "weight"):
                return module, known is THIRD
    family = backbone.config.model_type
    cure = f"Choose a family whose attention has one of {', '.join((*ALONE, *THIRD))}"
    raise UserError("model.value_spans", "finds no value vectors", got=family, cure=cure)


def value_width(backbone: Any) -> int:  # noqa: ANN401
    """Return the width of the value vectors, which groups of heads may share."""
    module, third = value_projection(backbone)
    # transformers' Conv1D, of GPT-2, has its matrix the other way round and says its width as nf.
    width = int(getattr(module, "nf", 0)) or int(module.out_features)
    heads = int(backbone.config.num_attention_heads)
    if third and width != 3 * int(backbone.config.hidden_size):
        family = backbone.config.model_type
        cure = f"Choose a family with as many values as queries, of {heads} heads here"
        raise UserError("model.value_spans", "finds no value vectors", got=family, cure=cure)
    return width // 3 if third else width


@contextmanager
def recorded_values(backbone: Any) -> Iterator[list[Tensor]]:  # noqa: ANN401
    """Put the value vectors that the last layer makes into a list while it lasts."""
    module, third = value_projection(backbone)
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found.append(output.chunk(3, dim=-1)[2] if third else output)

    handle = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
