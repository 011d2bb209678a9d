r"""SelfExtend: rotary positions that are exact among neighbours and shared by groups of tokens beyond.

The distance of query $i$ and key $j$ with $r = |i - j|$ is $r$ where $r < w$, else
$\lfloor i/g \rfloor - \lfloor j/g \rfloor + w - \lfloor w/g \rfloor$, and its mirror where $j > i$. One
softmax runs over both kinds. A rotation by the difference of two positions leads from one to the other, so
queries and keys come here as the layer has rotated them.

Texts within the window take the usual way, with the same numbers.

Source: Jin et al. (2024), https://arxiv.org/abs/2401.01325; both directions as in LongEmbed,
https://arxiv.org/abs/2404.12096. Its factor on the scores of E5-RoPE is left out.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.errors import UserError
from embedtrain.models.backbone.attention.grouped import attend_alike, join_groups, split_groups
from embedtrain.models.backbone.attention.layout import Layout
from embedtrain.models.backbone.attention.rules import Rules, layer_window
from embedtrain.models.backbone.long_positions import find_rotary

NAME = "embedtrain_self_extend"
ROWS_AT_ONCE = 256
"""Queries whose scores are held at once."""


@dataclass(frozen=True)
class Extension:
    """A wish for self_extend and how a family of models rotates."""

    wish: LongInputs
    rotary: nn.Module
    apply: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def rotate(
        self,
        module: nn.Module,
        first: Float[Tensor, "texts heads tokens head_dim"],
        second: Float[Tensor, "texts key_heads tokens head_dim"],
        distances: Int64[Tensor, " tokens"],
    ) -> tuple[Tensor, Tensor]:
        """Move queries and keys on by so many positions."""
        kinds = {}
        if "layer_type" in inspect.signature(self.rotary.forward).parameters:
            kinds["layer_type"] = module.config.layer_types[module.layer_idx]  # type: ignore[index,union-attr]
        cosine, sine = self.rotary(first, distances[None], **kinds)
        return self.apply(first, second, cosine, sine)


def extension(backbone: Any, wish: LongInputs, place: str) -> Extension:  # noqa: ANN401 - transformers is untyped
    """Return what the attention needs to know.

    Raises:
        UserError: If the backbone's positions are not plain rotary ones.
    """
    found = find_rotary(backbone)
    rotary = None if found is None else found[1]
    apply = getattr(sys.modules[type(rotary).__module__], "apply_rotary_pos_emb", None)
    scalings = [
        value for name, value in vars(rotary or object).items() if "attention_scaling" in name
    ]
    if rotary is None or apply is None or any(value != 1 for value in scalings):
        raise UserError(
            place,
            "self_extend needs plain rotary positions",
            got=backbone.config.model_type,
            cure="Choose another method or backbone",
        )
    return Extension(wish, rotary, apply)


def self_extend_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens head_dim"],
    key: Float[Tensor, "1 key_heads tokens head_dim"],
    value: Float[Tensor, "1 key_heads tokens head_dim"],
    _attention_mask: Tensor | None,
    *,
    layout: Layout,
    extension: Extension,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401 - transformers passes what other backends need
) -> tuple[Float[Tensor, "1 tokens heads head_dim"], None]:
    """Attend within each text laid end to end; the signature is that of transformers' attention functions.

    Layers that look at a sliding window of tokens only are left as they are.
    """
    told = is_causal is not None
    causal = bool(is_causal if told else getattr(module, "is_causal", False))
    mask_window = getattr(module.config, "sliding_window", None)
    window = layer_window(sliding_window, causal=causal, told=told, mask_window=mask_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = (x[0].transpose(0, 1) for x in (query, key, value))
    results = []
    for q, k, v, attended in split_groups(layout.groups, *rows):
        if q.shape[2] <= extension.wish.known_window or sliding_window is not None:
            out = attend_alike(q, k, v, attended, Rules(scale, window, causal, dropout))
        else:
            weights = _Weights(extension, module, causal, scale, dropout)
            out = weights.attend(q, k, v, attended)
        results.append(out)
    return join_groups(results)[None].to(query.dtype), None


AttentionInterface.register(NAME, self_extend_attention)


@dataclass(frozen=True)
class _Weights:
    extension: Extension
    module: nn.Module
    is_causal: bool
    scale: float
    dropout: float

    def attend(
        self,
        q: Float[Tensor, "texts heads tokens head_dim"],
        k: Float[Tensor, "texts key_heads tokens head_dim"],
        v: Float[Tensor, "texts key_heads tokens head_dim"],
        attended: int,
    ) -> Float[Tensor, "texts heads tokens head_dim"]:
        """Attend some rows at a time, so that memory grows with the length and not with its square."""
        repeats = q.shape[1] // k.shape[1]
        q, k, v = (x.float() for x in (q, k, v))
        near, group = self.extension.wish.near, self.extension.wish.group
        places = torch.arange(q.shape[2], device=q.device)
        away = places // group - places
        jump = near - near // group
        before, grouped = self.extension.rotate(self.module, q, k, away)
        before = self._moved(before, jump)
        after = None if self.is_causal else self._moved(before, -2 * jump)
        k, grouped, v = (
            x[:, :, :attended].repeat_interleave(repeats, dim=1) for x in (k, grouped, v)
        )
        rows = []
        for start in range(0, q.shape[2], ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            distance = places[part, None] - places[None, :attended]
            scores = before[:, :, part] @ grouped.mT
            if after is not None:
                scores = torch.where(distance < 0, after[:, :, part] @ grouped.mT, scores)
            scores = torch.where(distance.abs() < near, q[:, :, part] @ k.mT, scores) * self.scale
            if self.is_causal:
                scores = scores.masked_fill(distance < 0, -torch.inf)
            rows.append(F.dropout(scores.softmax(dim=-1), self.dropout) @ v)
        return torch.cat(rows, dim=2)

    def _moved(self, queries: Tensor, distance: int) -> Tensor:
        """Move all queries by one distance."""
        distances = torch.full((queries.shape[2],), distance, device=queries.device)
        return self.extension.rotate(self.module, queries, queries, distances)[0]
