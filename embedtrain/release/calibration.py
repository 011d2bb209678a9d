"""Texts that set the ranges of int8: the user's, and those at the edges that he has not thought of."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from embedtrain.errors import UserError
from embedtrain.models.encoder import TextEncoder
from embedtrain.release.graph_runs import Feed, padded_texts
from embedtrain.types import Side

LEAST = 64
MOST = 512
"""Texts that are taken: more change no range by much."""
TOGETHER = 4
SIDES: tuple[Side, ...] = ("query", "document")


def choose_texts(texts: Iterable[str]) -> list[str]:
    """Return different texts, at equal steps, and behind them an empty one, one word, and far too long ones.

    Without these the worst texts of a quantised model are just those.

    Raises:
        UserError: If there are too few to set ranges by.
    """
    found = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(found) < LEAST:
        raise UserError(
            "--calibrate", f"needs at least {LEAST} different texts to set ranges by", got=len(found),
            cure="Take several hundred of those that you will encode",
        )  # fmt: skip
    places = np.linspace(0, len(found) - 1, min(MOST, len(found))).astype(int)
    chosen = [found[place] for place in places]
    word = chosen[0].split()[0]
    return [*chosen, "", word, " ".join([word] * 600), " ".join(chosen[:32])]


def feeds(model: TextEncoder, texts: Sequence[str]) -> Iterator[Feed]:
    """Yield texts of like length together, under each side's prompt and length where these differ."""
    contract = model.contract
    alike = all(model.tokenization.encode([text], "query").ids.tolist()
                == model.tokenization.encode([text], "document").ids.tolist()
                for text in texts[:1])  # fmt: skip
    same = alike and contract.length("query") == contract.length("document")
    for side in SIDES[1:] if same else SIDES:
        lengths = [len(ids) for ids in model.tokenization(texts, side)]
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            yield padded_texts(model, [texts[row] for row in rows], side)[0]
