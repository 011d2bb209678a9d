"""Texts that are shown in several frames: taken apart, encoded, and made one vector again (MetaEOL).

Each text has the vectors of its frames averaged before they are projected and normalised. With a contrast the last
frame has no vector: what is read under it is taken away from the first.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.contract.framing import FRAME, PLACE, Frame, Framing
from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.dense.contrast import output_projection
from embedtrain.models.exits import layer_stacks
from embedtrain.models.pooling import positions
from embedtrain.packed import Texts, upload


def apart(texts: Texts) -> Texts:
    """Return every frame of every text as a text of its own, those of a text one after the other."""
    host = texts.on_host
    starts = (host.ids & FRAME).nonzero()[:, 0]
    if len(starts) == 0:  # a single frame is not marked
        return texts
    lengths = torch.diff(starts, append=torch.tensor([len(host.ids)]))
    return Texts(host.ids & ~FRAME, lengths).to(texts.ids.device)


def longest_first(
    texts: Texts, run: Callable[[Texts], Float[Tensor, "texts dim"]]
) -> Float[Tensor, "texts dim"]:
    """Run over texts sorted by length, as packed attention wants them; return the rows in their own order."""
    order = torch.argsort(texts.sizes, descending=True, stable=True)
    return run(texts.select(order)).index_select(0, upload(order.argsort(), texts.ids.device))


def without_place(
    texts: Texts,
) -> tuple[Texts, Texts, Int64[Tensor, " tokens"], Int64[Tensor, " texts"]]:
    """Take the mark off placeholders.

    Returns:
        The texts with their placeholders, and without; where the tokens of the latter lie among those of the former;
        and the place of each placeholder in its text.
    """
    host, device = texts.on_host, texts.ids.device
    marked = (host.ids & PLACE) > 0
    ids = host.ids & ~PLACE
    shown, own = Texts(ids, host.lengths), Texts(ids[~marked], host.lengths - 1)
    places = positions(host.lengths)[marked]
    kept = (~marked).nonzero()[:, 0]
    return shown.to(device), own.to(device), upload(kept, device), upload(places, device)


def refuse_wrong_frames(contract: Contract, backbone: Backbone) -> None:
    """Refuse frames that cannot be kept whole, or whose last token is not what would be pooled.

    Raises:
        UserError: Naming what is in the way.
    """
    if contract.marks_text and backbone.tokenizer.eos_token_id is None:
        raise UserError("model.prepend", "needs an EOS token and the tokenizer has none")
    if contract.framing is None:
        return
    tokenizer = backbone.tokenizer
    if tokenizer.truncation_side != "right":
        raise UserError(
            "model.query.suffix",
            "does not go with a tokenizer that cuts the starts of texts",
            got=tokenizer.truncation_side,
            cure="Set truncation_side: right in tokenizer_config.json",
        )
    for side in ("query", "document"):
        for frame in contract.framing.frames(side, contract.prompt(side)):
            number = len(tokenizer(frame.prompt + frame.suffix)["input_ids"])
            if number >= contract.length(side):
                raise UserError(
                    f"model.{side}.suffix",
                    "and what stands before it leave no room for a text",
                    got=f"{number} tokens of {contract.length(side)}",
                    cure=f"Raise model.{side}.length",
                )
    if contract.pooling == "last_token" and ends_in_suffix(contract):
        _refuse_no_last_token(contract, contract.framing, backbone)
    if contract.framing.contrast is not None:
        _refuse_no_contrast(contract, contract.framing)
        owner, name = layer_stacks(backbone.model)[0]
        output_projection(backbone.model, getattr(owner, name), contract.framing.contrast.layer)


def ends_in_suffix(contract: Contract) -> bool:
    """Whether the last token of a text is that of a suffix, and no token need be put behind it."""
    framing = contract.framing
    return framing is not None and any(frame.suffix for frame in _all_frames(contract, framing))


def _all_frames(contract: Contract, framing: Framing) -> list[Frame]:
    sides = ("query", "document")
    return [one for side in sides for one in framing.frames(side, contract.prompt(side))]  # type: ignore[arg-type]


def _refuse_no_last_token(contract: Contract, framing: Framing, backbone: Backbone) -> None:
    if not all(frame.suffix for frame in _all_frames(contract, framing)):
        raise UserError(
            "model.pooling",
            "last_token pools a suffix, which some texts have and others have not",
            cure="Set model.query.suffix and model.document.suffix",
        )
    last = backbone.tokenizer("a")["input_ids"][-1]
    if last in backbone.tokenizer.all_special_ids:
        raise UserError(
            "model.pooling",
            "last_token would pool what the tokenizer puts behind the suffix",
            got=backbone.tokenizer.convert_ids_to_tokens(last),
            cure="Choose a backbone whose tokenizer ends texts with nothing of its own",
        )


def _refuse_no_contrast(contract: Contract, framing: Framing) -> None:
    if contract.pooling != "last_token" or contract.echo or contract.prepend is not None:
        raise UserError(
            "model.contrast",
            "changes the last token, which must be the one that is pooled",
            got=contract.pooling,
            cure="Set pooling: last_token, and leave echo and prepend out",
        )
    for side in ("query", "document"):
        usual, other = framing.frames(side, contract.prompt(side))
        if usual == other:
            raise UserError(
                "model.contrast",
                f"has the frame that a {side} has anyhow: nothing would be left",
                got=other.prompt + "..." + other.suffix,
                cure="Ask for what is to be taken away",
            )
