"""How one layer attends, in the terms of flash attention."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

UNLIMITED = -1
Window = tuple[int, int]
"""Keys before and after a query that it sees, besides the one at its own place; -1 for all."""
WHOLE: Window = (UNLIMITED, UNLIMITED)
CAUSAL: Window = (UNLIMITED, 0)


@dataclass(frozen=True)
class Rules:
    """What a layer's attention does besides adding up values."""

    scale: float
    window: Window = WHOLE
    causal: bool = False
    dropout: float = 0.0
    """Share of the attention weights that is dropped."""
    softcap: float = 0.0
    """Scores ``s`` become ``softcap * tanh(s / softcap)``; 0 leaves them."""

    @property
    def reach(self) -> Window:
        """The window, where causal means that it ends at the query."""
        left, right = self.window
        return (left, 0) if self.causal else (left, right)

    def within(self, queries: int, keys: int) -> Window:
        """Return the reach for texts of so many tokens; what limits none of them is -1."""
        left, right = self.reach
        return (
            UNLIMITED if left >= queries - 1 else left,
            UNLIMITED if right >= keys - 1 else right,
        )


def band(queries: Tensor, keys: Tensor, reach: Window) -> Bool[Tensor, "queries keys"]:
    """Return which keys each query sees, by their places in their text."""
    ahead = keys - queries[:, None]
    seen = torch.ones_like(ahead, dtype=torch.bool)
    left, right = reach
    if left != UNLIMITED:
        seen &= ahead >= -left
    if right != UNLIMITED:
        seen &= ahead <= right
    return seen


def layer_window(
    sliding_window: int | None, *, causal: bool, told: bool, mask_window: int | None
) -> Window:
    """Return the window that a layer of transformers means.

    Its attention is given ``sliding_window``, which counts the query's own key: one more than what lies on either
    side. A decoder that was told by its config to look both ways (``told``) is masked by another rule, which takes
    the config's own number (``mask_window``) for each side.
    """
    if sliding_window is None:
        return WHOLE
    if causal:
        return sliding_window - 1, 0
    side = mask_window if told and mask_window is not None else sliding_window - 1
    return side, side
