"""Which words of a document the page marks: those that a late-interaction model compared, else those that are shared."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from embedtrain.contract.texts import join_texts
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.words import column_names
from embedtrain.models.text_model import TextModel
from embedtrain.serving.served import Vector
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

WORD = re.compile(r"\w+")
TERMS = 8
"""Words of a sparse model that are listed with their weights."""
Span = tuple[int, int]
STOPPED = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from"),
        *("how", "i", "in", "is", "it", "my", "of", "on", "or", "that", "the", "this", "to"),
        *("was", "what", "when", "where", "which", "who", "why", "will", "with", "you"),
    }
)
"""Words that nearly every English text shares."""


def shared_words(query: str, text: str) -> list[Span]:
    """Return where words of the query stand in a text, whatever their case and accents."""
    wanted = {folded(one[0]) for one in WORD.finditer(query)} - STOPPED
    return [one.span() for one in WORD.finditer(text) if folded(one[0]) in wanted]


def folded(word: str) -> str:
    """Return a word without case and accents."""
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(one for one in parts if not unicodedata.combining(one))


def partners(
    model: LateInteractionEncoder, query: TokenVectors, text: str, document: TokenVectors
) -> list[Span] | None:
    """Return the tokens of a text that are the best partner of some token of the query (MaxSim).

    None where a vector stands for more than one token.
    """
    contract = model.contract
    if contract.words or contract.pool_factor > 1:
        return None
    prompt = contract.prompt("document")
    ids = model.tokenization([text], "document")[0]
    places = model.kept_places(join_texts([ids]), "document").tolist()
    offsets = model.tokenizer(
        prompt + text,
        truncation=True,
        max_length=contract.length("document"),
        return_offsets_mapping=True,
        verbose=False,
    )
    if offsets["input_ids"] != ids.tolist() or len(places) != len(document.values):
        return None
    signs = document.tensors().tokens.numpy()
    best = np.unique((query.tensors().tokens.numpy() @ signs.T).argmax(axis=1))
    found = [offsets["offset_mapping"][places[one]] for one in best.tolist()]
    spans = [(start - len(prompt), end - len(prompt)) for start, end in found]
    return [(start, end) for start, end in spans if 0 <= start < end]


def shared_terms(
    model: SparseEncoder, query: SparseVectors, document: SparseVectors
) -> list[tuple[str, float]]:
    """Return the words that add most to a score, with what they add."""
    asked = dict(zip(query.indices.tolist(), query.values.tolist(), strict=True))
    entries = zip(document.indices.tolist(), document.values.tolist(), strict=True)
    shares = [(asked[word] * weight, word) for word, weight in entries if word in asked]
    names = column_names(model)
    return [(names[word], share) for share, word in sorted(shares, reverse=True)[:TERMS]]


def in_parts(text: str, spans: Iterable[Span]) -> list[tuple[str, bool]]:
    """Cut a text where marks begin and end; each part says whether it is marked."""
    marked = np.zeros(len(text) + 1, dtype=bool)
    for start, end in spans:
        marked[start:end] = True
    edges = np.flatnonzero(np.diff(marked[: len(text)])) + 1
    cuts = [0, *edges.tolist(), len(text)]
    return [(text[start:end], bool(marked[start])) for start, end in pairwise(cuts) if end > start]


def explained(
    model: TextModel | None, query: str, asked: Vector | None, text: str, vector: Vector | None
) -> tuple[list[Span], list[tuple[str, float]], str]:
    """Return what to mark in a document, words with weights, and what the marks mean."""
    if isinstance(asked, TokenVectors) and isinstance(vector, TokenVectors):
        assert isinstance(model, LateInteractionEncoder)
        spans = partners(model, asked, text, vector)
        if spans is not None:
            return spans, [], "tokens that the query's were compared with"
    if isinstance(asked, SparseVectors) and isinstance(vector, SparseVectors):
        assert isinstance(model, SparseEncoder)
        terms = shared_terms(model, asked, vector)
        spans = shared_words(" ".join(word for word, _ in terms), text)
        return spans, terms, "words of the vector that both share"
    return shared_words(query, text), [], "words that both share"
