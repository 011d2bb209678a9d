"""Attention over padded texts that does not ask the device whether there is any padding.

transformers looks into the mask to find out whether it can be left out; a GPU would make the host wait for that in each
forward pass. The caller knows the lengths, so where no text is padded it gives no mask, and where one is, the mask is made.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "embedtrain_padded"


def padded_attention(loaded: str, device: torch.device) -> str:
    """Return the name of the attention for padded texts of a backbone that was loaded with ``loaded``."""
    return NAME if loaded == "sdpa" and device.type == "cuda" else loaded


def _always_made(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401 - transformers is untyped
    settings |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*arguments, **settings)


def _unless_absent(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
    """Make the mask where one was given; without one nothing is asked of the device."""
    given = settings.get("attention_mask") is not None
    return (_always_made if given else sdpa_mask)(*arguments, **settings)


AttentionInterface.register(NAME, sdpa_attention_forward)
AttentionMaskInterface.register(NAME, _unless_absent)
