"""What lets the early tokens of a causal model know the late ones, without training: echo and prepending.

*Echo* shows each text twice and pools the second time, whose tokens have all seen the whole first one. We
repeat the text's own tokens, prompt and special tokens included, so that the boundary is exact.

*Token prepending* puts a placeholder into the text and overwrites its state with that of the last token before each
of a range of layers, so that in these layers every token behind it sees a summary of the whole text. As published it
stands between a prompt and the text (``place: before_text``, with a suffix behind the text) and begins as a random row
(``token: random``); by default it is the EOS token behind the first one, which needs no prompt.

Source: Springer et al. (2024), Echo embeddings, https://arxiv.org/abs/2402.15449; Fu et al. (2024), Token
Prepending, https://arxiv.org/abs/2412.11556.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.contract.texts import Contract, TokenPrepending
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.exits import layer_stacks
from embedtrain.models.pooling import positions
from embedtrain.models.saved_part import SavedPart
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
    places: Int64[Tensor, " texts"] | None = None,
    placeholder: "Placeholder | None" = None,
) -> Iterator[None]:
    """Overwrite, before the chosen layers, each placeholder's state with that of its text's last token.

    Args:
        backbone: The transformer.
        config: Which layers.
        lengths: Of the texts, placeholders included.
        packed: Whether they lie end to end.
        places: Where each placeholder stands in its text; None: behind the first token.
        placeholder: What its state is before the first layer; None: what its token gives.

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
    text, start = (nothing, first) if packed else (rows, nothing)
    here = start + (1 if places is None else places)

    def overwrite(states: Tensor) -> Tensor:
        return states.index_put((text, here), states[text, start + lengths - 1])

    def begin(states: Tensor) -> Tensor:
        assert placeholder is not None
        return states.index_put((text, here), placeholder.row.to(states.dtype))

    changes = [(layer, overwrite) for layer in layers[config.start : config.stop]]
    if placeholder is not None and config.start > 0:
        changes.append((layers[0], begin))
    hooks = [
        layer.register_forward_pre_hook(partial(_changed, change), with_kwargs=True)
        for layer, change in changes
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _changed(
    change: Callable[[Tensor], Tensor],
    _: nn.Module,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Change the states that a layer is given."""
    if arguments:
        return (change(arguments[0]), *arguments[1:]), keywords
    return arguments, keywords | {"hidden_states": change(keywords["hidden_states"])}


class Placeholder(SavedPart):
    """What a placeholder is before the first layer: random numbers as large as words' rows, never trained."""

    weights_file = "prepend.safetensors"
    row: Tensor

    def __init__(self, words: Float[Tensor, "vocab width"]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        row = torch.randn(words.shape[1], generator=generator, device="cpu")
        self.register_buffer("row", row.to(words.device) * words.detach().float().std())


def refuse_no_room(contract: Contract | SparseContract, backbone: Backbone) -> None:
    """Refuse what would show the backbone more tokens than it has positions for.

    Raises:
        UserError: If so, or if there is no token to prepend.
    """
    prepends = isinstance(contract, Contract) and contract.prepend is not None
    if not contract.echo and not prepends:
        return
    longest = max(contract.query_length, contract.document_length)
    inside = isinstance(contract, Contract) and contract.marks_text  # counted among its tokens
    shown = 2 * longest if contract.echo else longest + (not inside)
    if shown > backbone.max_length:
        raise UserError(
            "model.echo" if contract.echo else "model.prepend",
            f"shows the backbone {shown} tokens and it has positions for {backbone.max_length}",
            got=longest,
            cure="Lower model.query.length and model.document.length",
        )
    if prepends and backbone.tokenizer.eos_token_id is None:
        raise UserError("model.prepend", "needs an EOS token and the tokenizer has none")
