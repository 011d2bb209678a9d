"""Texts become sentences, paragraphs or lines: what neighbours are."""

import re

from embedtrain.data.documents.splitter import PARAGRAPH
from embedtrain.data.pair_making import Unit
from embedtrain.data.words import SENTENCE_END, num_words

BORDERS: dict[Unit, "re.Pattern[str]"] = {
    "sentence": SENTENCE_END,
    "paragraph": PARAGRAPH,
    "line": re.compile(r"\n"),
}
FEWEST_WORDS: dict[Unit, int] = {"sentence": 5, "paragraph": 5, "line": 1}


def units_of(text: str, unit: Unit, min_words: int | None = None) -> list[str]:
    """Return the units of a text, white space made one blank.

    A unit with fewer than ``min_words`` words is joined with its next one, the last with the one before it; None takes
    :data:`FEWEST_WORDS`. Sentences end by a rule that knows no abbreviations.
    """
    fewest = FEWEST_WORDS[unit] if min_words is None else min_words
    found: list[str] = []
    short = ""
    begin = 0
    for end in [*(border.end() for border in BORDERS[unit].finditer(text)), len(text)]:
        piece, begin = " ".join(f"{short} {text[begin:end]}".split()), end
        if num_words(piece) < fewest:
            short = piece
        elif piece:
            found.append(piece)
            short = ""
    if short and found:
        found[-1] = f"{found[-1]} {short}"
    return found
