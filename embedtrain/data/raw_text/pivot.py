"""Paraphrases of a bitext: two texts that have one translation."""

from collections.abc import Iterator
from itertools import combinations

from embedtrain.data.examples import Example, SourceConfig
from embedtrain.data.raw_text.makers import drawn
from embedtrain.data.words import shared_words, words_of

PAIRS = 4
"""Pairs of a pivot, where ``draws`` does not say."""
LARGEST_GROUP = 20
"""Texts with one translation; more are boilerplate."""
OVERLAPS = (0.05, 0.8)
"""Jaccard similarity of the words of two paraphrases: less are mistakes of the bitext, more teach nothing."""


def pivot_rows(bitext: Iterator[Example], config: SourceConfig) -> Iterator[list[Example]]:
    """Yield the paraphrases of each translation, in the order of its first row.

    The query of a row is a text, its positives are translations. Case, marks and spaces tell no two texts apart. All
    texts are held in memory.

    Source: Dadas (2022), https://arxiv.org/abs/2207.12759, who also filters by the similarity of a model; here two
    texts must share some words and not most.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
    for row in bitext:
        for translation in row.positives:
            groups.setdefault(words_of(translation), {}).setdefault(words_of(row.query), row.query)
    limited = config.model_copy(update={"draws": config.draws or PAIRS})
    for pivot, texts in groups.items():
        if len(texts) > LARGEST_GROUP:
            yield []
            continue
        alike = tuple(texts.values())
        rows = [
            Example(texts[left], (texts[right],), not_negatives=alike)
            for left, right in combinations(texts, 2)
            if OVERLAPS[0] <= shared_words(texts[left], texts[right]) <= OVERLAPS[1]
        ]
        yield drawn(rows, limited, " ".join(pivot))
