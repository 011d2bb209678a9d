"""How a query and a document become one sequence of tokens, for models that read both together.

A pair is prefix, query, middle, document, suffix, or the document comes first. Each text is tokenised once, by itself and without special
tokens, and joined as token ids. What is too long is cut from the document, then from the end of the query; what
stands around the texts is never cut: without its suffix a language model answers another question.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.packed import Texts

PLACEHOLDERS = ("{query}", "{document}")


@dataclass(frozen=True)
class PairParts:
    """The token ids around the two texts of a pair."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    has_types: bool = False
    """Whether the document and the suffix are of type 1 and what stands before them is of type 0 (BERT)."""
    document_first: bool = False
    """Whether the document stands before the middle and the query behind it."""

    @property
    def size(self) -> int:
        """Number of tokens that are neither query nor document."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def parts_of_tokenizer(tokenizer: Any) -> PairParts:  # noqa: ANN401 - transformers is untyped
    """Return what a tokenizer itself puts around the two texts of a pair."""
    encoded = tokenizer("a", "b", return_token_type_ids=True)
    ids, sides = encoded["input_ids"], encoded.sequence_ids(0)
    first, second = sides.index(0), sides.index(1)
    middle = [
        number
        for number, side in zip(ids[first:second], sides[first:], strict=False)
        if side is None
    ]
    last = len(sides) - sides[::-1].index(1)
    has_types = encoded["token_type_ids"][second] == 1
    return PairParts(tuple(ids[:first]), tuple(middle), tuple(ids[last:]), has_types)


def parts_of_template(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: str,
    place: str = "model.template",
    *,
    any_order: bool = False,
) -> PairParts:
    """Return the tokens of a template such as ``"<s>query: {query} document: {document}</s>"``.

    Special tokens are recognised where they are written. With ``any_order`` the document may come first.

    Raises:
        UserError: If it does not hold ``{query}`` and then ``{document}``, each once.
    """
    counts = [template.count(name) for name in PLACEHOLDERS]
    query, document = map(template.find, PLACEHOLDERS)
    document_first = query > document
    if counts != [1, 1] or (document_first and not any_order):
        order = "" if any_order else "then "
        problem = f"must hold {{query}} and {order}{{document}}, each once"
        raise UserError(place, problem, got=template, cure="Add them")
    first, second = reversed(PLACEHOLDERS) if document_first else PLACEHOLDERS
    prefix, rest = template.split(first)
    middle, suffix = rest.split(second)

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    return PairParts(ids(prefix), ids(middle), ids(suffix), document_first=document_first)


def without_spaces(template: str) -> str:
    """Return a template without the space before each text: it belongs to the text."""
    for place in PLACEHOLDERS:
        template = template.replace(f" {place}", place)
    return template


def space_before(tokenizer: Any) -> str:  # noqa: ANN401 - transformers is untyped
    """Return the space to put before a text, unless the tokenizer puts one there by itself."""

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    return "" if ids(": a")[len(ids(":")) :] == ids("a") else " "


def join_pairs(
    queries: Texts,
    documents: Texts,
    query_rows: Int64[Tensor, " pairs"],
    document_rows: Int64[Tensor, " pairs"],
    parts: PairParts,
    *,
    length: int,
    query_length: int,
) -> tuple[Texts, Int64[Tensor, " pairs"], int]:
    """Join queries and documents, which hold no special tokens, to pairs of at most ``length`` tokens.

    Args:
        queries: Each distinct query once.
        documents: Each distinct document once.
        query_rows: The query of each pair, on the CPU.
        document_rows: The document of each pair, on the CPU.
        parts: What stands around them.
        length: Tokens of a pair at most.
        query_length: Tokens of a query at most.

    Returns:
        The pairs, on the CPU; where the second of both texts begins in each of them; how many documents were cut.

    Raises:
        UserError: If no token is left for a document.
    """
    budget = length - parts.size
    refuse_no_room(parts, length=length, query_length=query_length)
    queries, documents = queries.on_host, documents.on_host
    of_query = queries.lengths[query_rows].clamp_max(min(query_length, budget - 1))
    whole = documents.lengths[document_rows]
    of_document = torch.minimum(whole, budget - of_query)
    fixed = [
        torch.tensor(ids, dtype=torch.int64) for ids in (parts.prefix, parts.middle, parts.suffix)
    ]
    pool = torch.cat([queries.ids, documents.ids, *fixed])
    starts = [texts.lengths.cumsum(0) - texts.lengths for texts in (queries, documents)]
    ends = torch.tensor([len(queries.ids), len(documents.ids), *map(len, fixed)]).cumsum(0).tolist()
    both = [(starts[0][query_rows], of_query), (starts[1][document_rows] + ends[0], of_document)]
    first, second = reversed(both) if parts.document_first else both
    segments = [
        _all_of(fixed[0], ends[1], len(whole)),
        first,
        _all_of(fixed[1], ends[2], len(whole)),
        second,
        _all_of(fixed[2], ends[3], len(whole)),
    ]
    begins = torch.stack([begin for begin, _ in segments], 1).flatten()
    sizes = torch.stack([size for _, size in segments], 1)
    lengths = sizes.sum(1)
    pairs = Texts(pool[_ranges(begins, sizes.flatten())], lengths)
    return pairs, sizes[:, :3].sum(1), int((of_document < whole).sum())


def refuse_no_room(
    parts: PairParts, *, length: int, query_length: int, place: str = "model.length"
) -> None:
    """Refuse a length that leaves a document no token beside the template and a query."""
    if length - parts.size <= min(query_length, 1) or query_length < 1:
        raise UserError(
            place,
            f"leaves nothing for a document beside {parts.size} tokens of the template and a query",
            got=length,
            cure="Raise it, or shorten the template",
        )


def _all_of(ids: Tensor, begin: int, count: int) -> tuple[Tensor, Tensor]:
    return torch.full((count,), begin), torch.full((count,), len(ids))


def _ranges(
    begins: Int64[Tensor, " ranges"], sizes: Int64[Tensor, " ranges"]
) -> Int64[Tensor, " places"]:
    """Return the whole numbers of each range, one range behind the other."""
    ends = sizes.cumsum(0)
    within = torch.arange(int(ends[-1]) if len(ends) else 0)
    return within + torch.repeat_interleave(begins - (ends - sizes), sizes)
