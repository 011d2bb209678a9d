"""Positions of texts that are longer than a backbone was trained on: given per text, or written into it.

Positions depend on a text's own length, never on the batch's: a text has one vector, whoever its neighbours.
"""

from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.texts import ModelContract
from embedtrain.errors import UserError
from embedtrain.models.backbone.fractional_positions import FractionalPositions, TunedPositions
from embedtrain.models.backbone.loading import max_length, position_offset
from embedtrain.models.pooling import positions

TABLE = "position_embeddings"
"""What the families with learned positions call their table."""
ROTARY = "rotary_emb"

AnyContractT = TypeVar("AnyContractT", bound=ModelContract)


def lengthen(
    backbone: Any,  # noqa: ANN401 - transformers is untyped
    contract: AnyContractT,
    wish: LongInputs | None,
    place: str,
    *,
    length: int | None = None,
) -> AnyContractT:
    """Let a backbone take texts of ``wish.length`` tokens; return the contract that says so.

    Changes the backbone where the wish is one of weights or config; without a wish, nothing.

    Args:
        backbone: A model of transformers.
        contract: Of the model; its documents get the wish's length.
        wish: Its window may be open.
        place: Of the wish, for error messages.
        length: Tokens of a document where it is to have fewer than the wish allows.

    Raises:
        UserError: If this backbone cannot be lengthened so, or was already.
    """
    if wish is None:
        return contract
    if contract.long_inputs is not None:
        raise UserError(
            place,
            "is for a model as it was trained, and this one is lengthened already",
            got=contract.long_inputs.method,
            cure="Start from the original",
        )
    window = wish.window or max_length(backbone.config)
    if wish.length <= window or window > max_length(backbone.config):
        raise UserError(
            place,
            f"must be longer than the model's window, of {window} tokens"
            if wish.length <= window
            else f"names a window of more than the {max_length(backbone.config)} positions there are",
            got=wish.length if wish.length <= window else window,
            cure="Set model.document.length alone" if wish.length <= window else "Lower it",
        )
    keep_short = wish.method != "ntk" if wish.keep_short is None else wish.keep_short
    resolved = {"window": window, "keep_short": keep_short}
    known = LongInputs.model_validate(wish.model_dump() | resolved)
    if find_table(backbone) is not None:
        _lengthen_table(backbone, known, place)
    elif find_rotary(backbone) is not None:
        _lengthen_rotary(backbone, known, place)
    else:
        raise UserError(
            place,
            "needs a backbone with a table of positions or rotary ones",
            got=backbone.config.model_type,
            cure="Choose another backbone",
        )
    changes = {"long_inputs": known, "document_length": length or wish.length}
    # model_copy returns the class it is called on, which the union of two hides from mypy
    lengthened: AnyContractT = contract.model_copy(update=changes)  # type: ignore[assignment]
    return lengthened


def long_positions(
    lengths: Int64[Tensor, " texts"], wish: LongInputs
) -> Int64[Tensor, " tokens"] | Float[Tensor, " tokens"]:
    """Return the position of each token under a wish that is not in the weights; it may be a fraction."""
    window, places = wish.known_window, positions(lengths)
    if wish.method == "grouped":
        shared = (lengths + window - 1) // window
        return places // torch.repeat_interleave(shared, lengths)
    if wish.method == "interpolated":
        closer = torch.where(lengths > window, wish.factor, 1)
        return places / torch.repeat_interleave(closer, lengths)
    return places


def take_fractions(backbone: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Let the backbone's table of positions, if it has one, be asked between its rows."""
    found = find_table(backbone)
    if found is None or isinstance(found[1], FractionalPositions):
        return
    owner, table = found
    new = FractionalPositions(
        table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx, device="meta"
    )
    new.weight = table.weight
    setattr(owner, TABLE, new)


@torch.no_grad()
def refuse_own_positions(backbone: Any, place: str) -> None:  # noqa: ANN401 - transformers is untyped
    """Refuse a backbone that does not go by the positions it is given.

    Raises:
        UserError: If states do not follow positions, or equal positions do not give equal states.
    """
    padding = getattr(backbone.config, "pad_token_id", None)
    some = [one for one in range(9) if one != padding][-4:]
    ids = torch.tensor([some], device=backbone.device)
    usual = torch.arange(4.0, device=backbone.device)[None] + position_offset(backbone.config)
    more = token_types(backbone, ids)
    training = backbone.training
    backbone.eval()
    try:
        plain = backbone(input_ids=ids, use_cache=False).last_hidden_state
        same = backbone(input_ids=ids, position_ids=usual, use_cache=False, **more)
        other = usual - torch.tensor([0.0, 0.5, 1.0, 0.0], device=ids.device)
        moved = backbone(input_ids=ids, position_ids=other, use_cache=False, **more)
        follows = torch.allclose(same.last_hidden_state, plain, atol=1e-5) and not torch.equal(
            moved.last_hidden_state, plain
        )
    except (TypeError, RuntimeError, IndexError):
        follows = False
    finally:
        backbone.train(training)
    if not follows:
        raise UserError(
            place,
            "gives positions from outside, which this family does not take",
            got=backbone.config.model_type,
            cure="Choose another method or backbone",
        )


def token_types(backbone: Any, ids: Tensor) -> dict[str, Tensor]:  # noqa: ANN401 - transformers is untyped
    """Return the token types to give beside positions: some families look theirs up by position."""
    has_some = any(
        "token_type_ids" in dict(part.named_buffers(recurse=False)) for part in backbone.modules()
    )
    return {"token_type_ids": torch.zeros_like(ids)} if has_some else {}


def refuse_untuned(backbone: Any, wish: LongInputs) -> None:  # noqa: ANN401 - transformers is untyped
    """Refuse a folder that says its positions were tuned and does not hold them.

    Raises:
        UserError: If there are none, or those of another length.
    """
    found = find_table(backbone)
    table = None if found is None else found[1]
    if wish.tune and not (isinstance(table, TunedPositions) and table.factor == wish.factor):
        raise UserError(
            "the model's folder",
            "lacks the positions that it was tuned with",
            cure="Copy all of it",
        )


def find_table(backbone: Any) -> tuple[nn.Module, nn.Embedding] | None:  # noqa: ANN401 - transformers is untyped
    """Return the table of learned positions and the module that holds it."""
    for owner in backbone.modules():
        table = getattr(owner, TABLE, None)
        if isinstance(table, nn.Embedding) and table.num_embeddings == (
            backbone.config.max_position_embeddings
        ):
            return owner, table
    return None


def find_rotary(backbone: Any) -> tuple[nn.Module, nn.Module] | None:  # noqa: ANN401 - transformers is untyped
    """Return the module that turns positions into angles, and the module that holds it."""
    for owner in backbone.modules():
        rotary = getattr(owner, ROTARY, None)
        if isinstance(rotary, nn.Module) and getattr(backbone.config, "rope_parameters", None):
            return owner, rotary
    return None


def _lengthen_table(backbone: Any, wish: LongInputs, place: str) -> None:  # noqa: ANN401 - transformers is untyped
    if wish.method in ("ntk", "self_extend"):
        raise UserError(
            place,
            "is for rotary positions, and this backbone has a table of them",
            got=wish.method,
            cure="Use grouped, interpolated or recurrent",
        )
    found = find_table(backbone)
    assert found is not None
    owner, table = found
    if wish.tune:
        setattr(owner, TABLE, TunedPositions.of(table, wish.factor))
    if not wish.in_weights:
        return
    first = position_offset(backbone.config)
    window, places = wish.known_window, torch.arange(wish.length, device=table.weight.device)
    rows = {
        "grouped": places // wish.factor,
        "recurrent": places % window,
        "interpolated": places / wish.factor,
    }[wish.method]
    old = table.weight.detach()
    asked = FractionalPositions(window, old.shape[1], _weight=old[first : first + window])
    weight = torch.cat([old[:first], asked(rows)])
    new = nn.Embedding(len(weight), old.shape[1], padding_idx=table.padding_idx, device="meta")
    new.weight = nn.Parameter(weight.detach(), requires_grad=table.weight.requires_grad)
    setattr(owner, TABLE, new)
    backbone.config.max_position_embeddings = len(weight)
    for name, buffer in list(owner.named_buffers(recurse=False)):
        if name in ("position_ids", "token_type_ids"):  # one entry per position
            full = torch.arange(len(weight), device=buffer.device)[None]
            values = full if name == "position_ids" else torch.zeros_like(full)
            owner.register_buffer(name, values, persistent=False)


def _lengthen_rotary(backbone: Any, wish: LongInputs, place: str) -> None:  # noqa: ANN401 - transformers is untyped
    if wish.tune:
        cure = "Leave tune out, or choose a backbone with such a table"
        raise UserError(
            place, "tunes rows of a table, and this backbone's positions are rotary", cure=cure
        )
    if wish.method == "recurrent" or (wish.method == "grouped" and wish.in_weights):
        raise UserError(
            place,
            "cannot be written into the config of rotary positions"
            if wish.method == "grouped"
            else "is for tables of positions, and this backbone's are rotary",
            got=wish.method,
            cure="Use interpolated or ntk",
        )
    if not wish.in_weights:
        return
    config, found = backbone.config, find_rotary(backbone)
    assert found is not None
    owner, rotary = found
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Of layers that look at whole texts; local ones never see far.
    settings = config.rope_parameters.get("full_attention", config.rope_parameters)
    if settings.get("rope_type", "default") != "default":
        raise UserError(
            place, "needs rotary positions that nobody has scaled", got=settings["rope_type"]
        )
    if wish.method == "interpolated":
        settings |= {"rope_type": "linear", "factor": float(wish.factor)}
    else:
        width = head * settings.get("partial_rotary_factor", 1.0)
        settings["rope_theta"] *= float(wish.factor) ** (width / (width - 2))
    config.max_position_embeddings = max(config.max_position_embeddings, wish.length)
    setattr(owner, ROTARY, type(rotary)(config).to(backbone.device))
