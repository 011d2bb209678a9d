"""Attention over padded texts that does not ask the device whether there is any padding.

transformers looks into the mask, or without one into a decoder's positions, to find out whether it can be left out; a
GPU would make the host wait for that in each forward pass. So the mask is always made.
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


AttentionInterface.register(NAME, sdpa_attention_forward)
AttentionMaskInterface.register(NAME, _always_made)
