"""Whether a backbone gives the same states without padding: asked of itself, because a wrong guess would be silent.

Backbones differ in what they make of positions and masks. So padded and packed states of random tokens are compared
before anything is packed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.memory import is_out_of_memory
from embedtrain.packed import Texts
from embedtrain.precision import float32_products

logger = logging.getLogger(__name__)

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""What the families of transformers call the share of attention weights that is dropped."""
ENOUGH = 512
"""Tokens of the longest text of a check; more only to reach beyond a window."""
TOLERANCE = 1e-4
"""Of float32, beside the largest state."""
ROUNDINGS = 4
"""Of weights that are kept in fewer bits, beside each text's states; float32 cannot judge them."""

States = Callable[[], Float[Tensor, "tokens width"]]


@dataclass(frozen=True)
class Running:
    """How a backbone is about to run, as far as it decides who computes its attention."""

    device: str
    dtype: torch.dtype = torch.float32
    drops: bool = False
    """Whether attention weights will be dropped."""

    @classmethod
    def of(cls, backbone: Any, device: torch.device) -> "Running":  # noqa: ANN401 - transformers is untyped
        """Look at autocast, weights and dropout; a CPU always attends the same way."""
        if device.type == "cpu":
            return cls("cpu")
        dtype = next(backbone.parameters()).dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        shares = [getattr(backbone.config, name, None) or 0 for name in ATTENTION_DROPOUT]
        return cls(device.type, dtype, backbone.training and max(shares) > 0)


def texts_to_check(limit: int, vocabulary: int, padding: int | None, device: torch.device) -> Texts:
    """Return random texts, one of ``limit`` tokens."""
    lengths = torch.tensor(sorted({limit, min(limit, 19), min(limit, 7)}, reverse=True))
    lengths = torch.cat([lengths, lengths[-1:]])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (int(lengths.sum()),), generator=generator)
    ids[ids == (padding or 0)] = vocabulary - 1
    return Texts(ids, lengths).to(device)


def enough(limit: int, config: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Return how long the longest text must be, up to ``limit``, to show what a window does."""
    window = getattr(config, "sliding_window", None) or 0
    return min(limit, max(ENOUGH, 2 * window + 3))


@torch.no_grad()
def states_agree(
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    running: Running,
    sizes: Sequence[int],
    padded: States,
    packed: States,
) -> bool:
    """Compare what two ways make of the same texts, within what the type of number allows.

    In float32 on a CPU they must agree to 1e-4 of the largest state. Where products may be rounded to fewer bits,
    both are compared with float32: no text may be more than twice as wrong packed as padded.
    """
    training = backbone.training
    backbone.eval()
    half = torch.finfo(running.dtype).bits < 32
    exactly = torch.autocast(running.device, enabled=False)
    try:
        with float32_products("ieee", running.device), exactly:
            exact = padded().float()
            if running.device == "cpu" and not half:
                return _close(packed().float(), exact)
        with torch.autocast(running.device, running.dtype if half else None, enabled=half):
            usual, ours = padded().float(), packed().float()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):  # says nothing of the backbone
            raise
        logger.info("packing is not possible with this backbone: %s", error)
        return False
    finally:
        backbone.train(training)
    weights = next(backbone.parameters()).dtype
    floor = 0.0 if weights == torch.float32 else ROUNDINGS * torch.finfo(weights).eps
    return as_right(exact, usual, ours, sizes, floor)


def _close(ours: Float[Tensor, "tokens width"], exact: Float[Tensor, "tokens width"]) -> bool:
    return bool((ours - exact).abs().max() <= TOLERANCE * exact.abs().max())


def as_right(
    exact: Float[Tensor, "tokens width"],
    usual: Float[Tensor, "tokens width"],
    ours: Float[Tensor, "tokens width"],
    sizes: Sequence[int],
    floor: float = 0.0,
) -> bool:
    """Whether no text of ``ours`` is more than twice as far from ``exact`` as it is in ``usual``.

    Args:
        exact: States in float32.
        usual: The same, rounded.
        ours: What is judged.
        sizes: Tokens of each text.
        floor: An error beside a text's states that is always allowed.
    """
    parts = (torch.split(x, list(sizes)) for x in (exact, usual, ours))
    for text, one, other in zip(*parts, strict=True):
        allowed = torch.maximum(2 * (one - text).norm(), max(floor, TOLERANCE) * text.norm())
        if not (other - text).norm() <= allowed:  # NaN is not
            return False
    return True
