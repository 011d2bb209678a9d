"""Let packed texts have few sizes: a CPU's allocator and its compiled products serve the same sizes again."""

import torch
from torch import Tensor

from embedtrain.packed import Texts

LARGEST = 64
"""Tokens; more than so many are never added, and as many only to 2,048 or more."""


def rounded(tokens: int) -> int:
    """Return the size to which so many tokens are filled up: at most a thirty-second more.

    Small batches change too much by a token to be filled up, and need little memory.
    """
    step = min(LARGEST, max(1, (1 << tokens.bit_length() - 1) // 32))
    return -(-tokens // step) * step


def fill_up(texts: Texts, attended: Tensor | None, token: int) -> tuple[Texts, Tensor | None]:
    """Add texts of one ``token`` each, whose states nobody reads, up to the next size.

    No text looks at another and layers look at each token alone, so the states of the others stay what they are.
    """
    more = rounded(len(texts.ids)) - len(texts.ids)
    if more == 0:
        return texts, attended
    ones = torch.ones(more, dtype=texts.lengths.dtype, device=texts.lengths.device)
    if attended is not None:
        attended = torch.cat([attended, ones.to(attended.dtype)])
    ids = torch.cat([texts.ids, token * ones.to(texts.ids.dtype)])
    second = None if texts.second is None else torch.cat([texts.second, ones])
    return Texts(ids, torch.cat([texts.lengths, ones]), second=second), attended
