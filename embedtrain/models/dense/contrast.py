r"""Contrastive prompting: what a text says under a prompt that asks for the wrong thing is taken away.

Let A be what the attention heads of one layer give for the last token under the usual frame, and B the same under a frame
that asks for what does not matter. A is replaced, before the layer's output projection, and the pass goes on:

$$A' = c\,(A - B), \qquad A' = (A - B)\,\frac{|A|}{|A - B|}, \qquad A' = c\,(A - B)\,\frac{|A|}{|A - B|}$$

(``scaled``, ``norm``, ``scaled_norm``). No coefficient of these gives the model back as it was; $A + c\,(A - B)$
(``added``), which is ours, does with c = 0. The pass under the other frame ends at that layer.

Source: Cheng et al. (2025), https://arxiv.org/abs/2505.12831 (contrastive prompting).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.framing import Contrast
from embedtrain.errors import UserError
from embedtrain.models.exits import layer_stacks
from embedtrain.packed import Texts

Places = tuple[Int64[Tensor, " texts"], Int64[Tensor, " texts"]]
SHORTEST = 1e-12
"""A difference is not stretched from less than this."""


def contrasted(
    usual: Float[Tensor, "texts dim"],
    other: Float[Tensor, "texts dim"],
    config: Contrast,
    num_heads: int,
) -> Float[Tensor, "texts dim"]:
    """Return what takes the place of the heads' outputs ``usual``, given those under the other frame."""
    difference = usual - other
    if config.form == "scaled":
        return config.coefficient * difference
    if config.form == "added":
        return usual + config.coefficient * difference
    heads = num_heads if config.form == "sub_head_norm" else 1
    parts, whole = (one.view(len(one), heads, -1) for one in (difference, usual))
    size = parts.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    stretched: Tensor = (parts * (whole.norm(dim=-1, keepdim=True) / size)).flatten(1)
    return config.coefficient * stretched if config.form == "scaled_norm" else stretched


def last_tokens(texts: Texts, *, packed: bool) -> Places:
    """Return the row and the column of the last token of each text in what a layer computes on."""
    rows = torch.arange(len(texts), device=texts.ids.device)
    if packed:
        return torch.zeros_like(rows), texts.lengths.cumsum(0) - 1
    return rows, texts.lengths - 1


@contextmanager
def reading_heads(backbone: Any, layer: int, places: Places) -> Iterator[list[Tensor]]:  # noqa: ANN401 - untyped
    """Yield a list that gets the heads' outputs in ``layer``, at these places, once the backbone has run so far.

    Raises:
        UserError: If the backbone has no such layer, or its attention is built otherwise.
    """
    found: list[Tensor] = []
    owner, name = layer_stacks(backbone)[0]
    layers = getattr(owner, name)
    projection = output_projection(backbone, layers, layer)
    setattr(owner, name, nn.ModuleList(list(layers)[: layer + 1]))
    hook = projection.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][places]))
    try:
        yield found
    finally:
        hook.remove()
        setattr(owner, name, layers)


@contextmanager
def replacing_heads(
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    layer: int,
    places: Places,
    change: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Replace the heads' outputs in ``layer`` at these places by what ``change`` makes of them."""
    owner, name = layer_stacks(backbone)[0]

    def replace(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heads, *more = inputs
        return heads.index_put(places, change(heads[places]).to(heads.dtype)), *more

    projection = output_projection(backbone, getattr(owner, name), layer)
    hook = projection.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def output_projection(backbone: Any, layers: nn.ModuleList, layer: int) -> nn.Module:  # noqa: ANN401 - untyped
    """Return what mixes the heads' outputs of a layer.

    Raises:
        UserError: If there is no such layer, or its attention has no ``q_proj`` and ``o_proj``.
    """
    if layer >= len(layers):
        raise UserError(
            "model.contrast.layer",
            f"is not below the {len(layers)} layers of the backbone",
            got=layer,
            cure="Lower it",
        )
    for part in layers[layer].modules():
        own = dict(part.named_children())
        if "q_proj" in own and "o_proj" in own:
            return own["o_proj"]
    raise UserError(
        "model.contrast",
        "is for decoders whose attention ends in o_proj (Llama, Qwen, Gemma, Mistral)",
        got=backbone.config.model_type,
        cure="Choose one of them",
    )
