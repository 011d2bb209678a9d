"""What lets the early tokens of a causal model know the late ones, without training: echo and prepending.

*Echo* shows each text twice and pools the second time, whose tokens have all seen the whole first one. We
repeat the text's own tokens, prompt and special tokens included, so that the boundary is exact.

*Token prepending* puts a placeholder behind the first token and overwrites its state with that of the last
token before each of a range of layers, so that in these layers every token sees a summary of the whole text.

Source: Springer et al. (2024), Echo embeddings, https://arxiv.org/abs/2402.15449; Fu et al. (2024), Token
Prepending, https://arxiv.org/abs/2412.11556, whose placeholder has a random embedding where ours is the EOS
token's and follows the first token where theirs stands in a prompt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.contract.texts import Contract, TokenPrepending
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.exits import layer_stacks
from embedtrain.models.pooling import positions
from embedtrain.packed import Texts, upload


def twice(texts: Texts) -> tuple[Texts, Int64[Tensor, " tokens"]]:
    """Return each text followed by itself, and the places of the tokens of the second time."""
    host, device = texts.on_host, texts.ids.device
    rows = torch.arange(len(host)).repeat_interleave(2)
    repeated = Texts(host.select(rows).ids, 2 * host.lengths)
    second = positions(repeated.lengths) >= host.lengths.repeat_interleave(repeated.lengths)
    return repeated.to(device), upload(second.nonzero()[:, 0], device)


def with_placeholder(texts: Texts, token: int) -> tuple[Texts, Int64[Tensor, " tokens"]]:
    """Return the texts with ``token`` behind each first token, and the places of the texts' own tokens."""
    host, device = texts.on_host, texts.ids.device
    lengths = host.lengths + 1
    own = (positions(lengths) != 1).nonzero()[:, 0]
    ids = torch.full((int(lengths.sum()),), token, dtype=host.ids.dtype)
    ids[own] = host.ids
    return Texts(ids, lengths).to(device), upload(own, device)


@contextmanager
def prepending(
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    config: TokenPrepending,
    lengths: Int64[Tensor, " texts"],
    *,
    packed: bool,
) -> Iterator[None]:
    """Overwrite, before the chosen layers, each placeholder's state with that of its text's last token.

    Raises:
        UserError: If the backbone has no such layers.
    """
    stacks = layer_stacks(backbone)
    layers = list(getattr(*stacks[0])) if stacks else []
    if config.stop > len(layers):
        raise UserError(
            "model.prepend.stop",
            f"is more than the {len(layers)} layers of the backbone",
            got=config.stop,
            cure="Lower it",
        )
    first = lengths.cumsum(0) - lengths
    rows = torch.arange(len(lengths), device=lengths.device)
    nothing = torch.zeros_like(rows)

    def overwrite(_: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        states = arguments[0] if arguments else keywords["hidden_states"]
        text, start = (nothing, first) if packed else (rows, nothing)
        states = states.index_put((text, start + 1), states[text, start + lengths - 1])
        if arguments:
            return (states, *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": states}

    hooks = [
        layer.register_forward_pre_hook(overwrite, with_kwargs=True)
        for layer in layers[config.start : config.stop]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def refuse_no_room(contract: Contract | SparseContract, backbone: Backbone) -> None:
    """Refuse what would show the backbone more tokens than it has positions for.

    Raises:
        UserError: If so, or if there is no token to prepend.
    """
    prepends = isinstance(contract, Contract) and contract.prepend is not None
    if not contract.echo and not prepends:
        return
    longest = max(contract.query_length, contract.document_length)
    shown = 2 * longest if contract.echo else longest + 1
    if shown > backbone.max_length:
        raise UserError(
            "model.echo" if contract.echo else "model.prepend",
            f"shows the backbone {shown} tokens and it has positions for {backbone.max_length}",
            got=longest,
            cure="Lower model.query.length and model.document.length",
        )
    if prepends and backbone.tokenizer.eos_token_id is None:
        raise UserError("model.prepend", "needs an EOS token and the tokenizer has none")
