"""The plan of a language model's queries: of each chunk which kinds, for whom, how long, in which language.

All is drawn by hashes of a seed, the chunk's content and the query's number: neither the order of documents nor
threads nor a kill can change it. Kinds are dealt out so that their shares are met to one query; a document more moves
the kinds of about as many queries of others as it has itself.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from embedtrain.data.documents.document import Chunk
from embedtrain.data.draw import number
from embedtrain.data.words import language_of
from embedtrain.synthesis.language_settings import LanguageConfig

Name = TypeVar("Name", bound=str)
USER = "user"
"""The kind that the user's own queries show."""
WHOLE = 2.0**64
SEEDS = 2**31


@dataclass(frozen=True)
class Slot:
    """A query that is to be written.

    Attributes:
        chunk: Id of the chunk.
        number: Among the chunk's queries.
        type: Its kind.
        words: Fewest and most; None where the examples show it.
        difficulty: Who asks: ``plain``, ``expert``, ``novice``.
        language: ISO code; None where it is not known.
        persona: Description of who asks; empty for nobody in particular.
        temperature: Of the draws.
        seed: Of the draws.
        turn: Where among the examples those shown begin.
    """

    chunk: str
    number: int
    type: str
    words: tuple[int, int] | None
    difficulty: str
    language: str | None
    persona: str
    temperature: float
    seed: int
    turn: int


def plan(
    chunks: Sequence[Chunk],
    config: LanguageConfig,
    seed: int,
    types: Mapping[Name, float],
    *,
    personas: Sequence[str] = (),
    user_words: tuple[int, int] | None = None,
    is_users: bool = False,
) -> list[Slot]:
    """Return the slots of chunks, in the order of the chunks.

    Args:
        chunks: Whose queries are planned.
        config: What is wanted.
        seed: Of all draws.
        types: Shares of the kinds.
        personas: Who may ask.
        user_words: Words of the user's own queries.
        is_users: Whether all queries are to be like the user's own.
    """
    names = {chunk.id: (seed, digest(chunk)) for chunk in chunks}
    slots = [(chunk, place) for chunk in chunks for place in range(config.per_chunk)]
    if is_users:
        kinds = [USER] * len(slots)
    else:
        # The id parts chunks that are word for word alike.
        ranks = [number(*names[chunk.id], place, "type") for chunk, place in slots]
        ids = [(rank, chunk.id, place) for rank, (chunk, place) in zip(ranks, slots, strict=True)]
        kinds = dealt(types, ids)
    words = {str(kind): both for kind, both in config.words.items()}
    made = []
    for (chunk, place), kind in zip(slots, kinds, strict=True):
        own = (*names[chunk.id], place)
        slot = Slot(
            chunk.id, place, kind,
            words=user_words if is_users else words[kind],
            difficulty=_drawn(config.difficulty, number(*own, "difficulty")),
            language=_language(chunk, config, place),
            persona=personas[number(*own, "persona") % len(personas)] if personas else "",
            temperature=config.temperature if place else config.first_temperature,
            seed=number(*own, "draw") % SEEDS, turn=number(*own, "examples") % SEEDS,
        )  # fmt: skip
        made.append(slot)
    return made


def digest(chunk: Chunk) -> str:
    """Return what stands for a chunk's content, wherever it stands."""
    content = "\0".join((chunk.title, chunk.heading, chunk.text))
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def dealt(shares: Mapping[Name, float], ranks: Sequence[tuple[int, str, int]]) -> list[str]:
    """Return a name for each rank, so that each name has its share, by the largest remainders."""
    whole, total = len(ranks), sum(shares.values())
    exact = {name: share * whole / total for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_rest = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_rest[: whole - sum(counts.values())]:
        counts[name] += 1
    order = sorted(range(whole), key=ranks.__getitem__)
    names = [name for name, count in counts.items() for _ in range(count)]
    found = [""] * whole
    for row, name in zip(order, names, strict=True):
        found[row] = name
    return found


def _drawn(shares: Mapping[Name, float], draw: int) -> str:
    """Return the name whose share of the whole a draw of 64 bits falls into."""
    left = draw / WHOLE * sum(shares.values())
    for name, share in shares.items():
        left -= share
        if left < 0:
            return name
    return next(reversed(list(shares)))


def _language(chunk: Chunk, config: LanguageConfig, place: int) -> str | None:
    if config.language == "keep":
        return language_of(chunk.text)
    return config.language[place % len(config.language)] if config.language else None
