"""Linear layers of a CPU with weights laid out for its products once, where many tokens pass them without gradients.

Plain products lay a weight out at each call and copy the bias before they add to it. oneDNN does neither, and knows the
widest vectors of processors that the usual library treats as older ones. The results differ in the last digits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ENOUGH = 4096
"""Tokens that are worth laying out weights for."""
ROWS = 2048
"""Tokens of a product, about, for which they are laid out; others are computed as well."""


class LaidOutProducts(TorchFunctionMode):
    """While it is entered, the linear layers of a model multiply by weights that were laid out before.

    Holds those weights a second time until it is dropped. Layers of other types, and calls that keep gradients, stay
    as they are.

    Args:
        model: Whose layers these are; none of their weights may change before it is dropped.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._weights = {
            id(layer.weight): torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)  # noqa: SLF001 - torch has no other name
            for layer in model.modules()
            if type(layer) is nn.Linear and layer.weight.dtype == torch.float32
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        """Compute a function of torch, a linear layer of the model by its laid out weight."""
        if func is F.linear and not torch.is_grad_enabled():
            result = self._linear(*args, **(kwargs or {}))
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """Return the product with a laid out weight, and with the call's own bias; None where there is no such weight."""
        known = self._weights.get(id(weight))
        if known is None or input.dtype != torch.float32:
            return None
        result: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            input, known, bias, "none", [], ""
        )
        return result


def can_lay_out(device: torch.device, tokens: int) -> bool:
    """Whether products of so many tokens gain by it."""
    return (
        device.type == "cpu"
        and tokens >= ENOUGH
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and not torch.is_autocast_enabled("cpu")
    )
