"""Contexts: several texts that stand together, about which a language model writes several tasks.

Tasks of different kinds on the very same texts differ in what they need, not in what the texts are about.
Source: SCARLet (2025), https://arxiv.org/abs/2504.00573, whose abstract leaves open how texts are drawn: here a text and
its nearest by BM25.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from embedtrain.data.documents.document import Chunk
from embedtrain.data.draw import number
from embedtrain.errors import UserError
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.section import Count, Section
from embedtrain.synthesis.plan import digest

Task = Literal["question", "several", "claim", "relation"]
TASKS: tuple[Task, ...] = ("question", "several", "claim", "relation")


class ContextConfig(Section):
    """Sets of texts, and the tasks with answers that a language model writes about each."""

    texts: Annotated[int, Field(ge=2, le=12)] = 6
    """Texts of a context: a chunk and its nearest by BM25."""
    number: Count = 1000
    """Contexts; their first chunks are drawn."""
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1)
    """What is asked of each: a ``question`` that one text answers, one that needs ``several``, a ``claim`` that is true or
    false, a ``relation`` of a thing to its value."""
    answer_words: Count = 12
    """Words of an answer at most: its likelihood is what texts are judged by."""


@dataclass(frozen=True)
class Context:
    """Texts that stand together, in an order that says nothing, and a name that follows from them."""

    id: str
    chunks: tuple[Chunk, ...]


def draw_contexts(chunks: Sequence[Chunk], config: ContextConfig, seed: int) -> list[Context]:
    """Draw contexts: chunks by a hash of their content, each with those that share the most words with it.

    Raises:
        UserError: If there are fewer chunks than a context has texts.
    """
    if len(chunks) < config.texts:
        raise UserError(
            "contexts.texts", f"are more than the {len(chunks)} chunks to write about",
            got=config.texts, cure="Lower it, or give more documents",
        )  # fmt: skip
    # Equal scores of BM25 go by place, which must not depend on the order of files.
    named = sorted(((digest(chunk), chunk.id, chunk) for chunk in chunks), key=lambda one: one[:2])
    digests, chunks = [one[0] for one in named], [one[2] for one in named]
    order = sorted(range(len(chunks)), key=lambda row: (number(seed, "context", digests[row]), row))
    first = order[: config.number]
    texts = [chunk.text for chunk in chunks]
    found = Bm25Index(Bm25Search(), texts).search([texts[row] for row in first], config.texts)
    contexts = []
    for row, nearest in zip(first, found.indices.tolist(), strict=True):
        # A text of rare words has few neighbours: others that were drawn take the empty places.
        known = dict.fromkeys([row, *(one for one in nearest if one >= 0), *order])
        rows = list(known)[: config.texts]
        names = sorted(digests[one] for one in rows)
        rows.sort(key=lambda one: (number(seed, "place", digests[row], digests[one]), one))
        name = f"c-{number(*names):016x}"
        contexts.append(Context(name, tuple(chunks[one] for one in rows)))
    return list({one.id: one for one in contexts}.values())
