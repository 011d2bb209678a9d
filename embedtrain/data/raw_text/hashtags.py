"""Short texts that share a hashtag are each other's positives, once the tags are taken out (HICL)."""

import re
from collections.abc import Iterator

from embedtrain.data.documents.document import Document
from embedtrain.data.draw import generator
from embedtrain.data.examples import Example, SourceConfig

TAG = re.compile(r"#(\w+)")
POSITIVES = 8
"""Texts with a tag of its own that a text is shown beside."""
NEAREST = 256
"""Texts with a tag of its own that are no negatives of a text, beside its positives."""


def hashtag_rows(documents: Iterator[Document], config: SourceConfig) -> Iterator[list[Example]]:
    """Yield the row of each text with a tag that another one has; all texts are held in memory.

    All tags are taken out, so that no word of a text tells them; texts that differ in tags alone are one.

    Source: Tan et al. (2023), HICL, https://arxiv.org/abs/2308.09985, whose noise is another one.
    """
    texts: dict[str, set[str]] = {}
    for document in documents:
        tags = {tag.lower() for tag in TAG.findall(document.text)}
        plain = " ".join(TAG.sub(" ", document.text).split())
        if plain:
            texts.setdefault(plain, set()).update(tags)
    holders: dict[str, list[str]] = {}
    for text, tags in texts.items():
        for tag in tags:
            holders.setdefault(tag, []).append(text)
    for text, tags in texts.items():
        yield _rows(text, [holders[tag] for tag in sorted(tags)], config.draw_seed)


def _rows(text: str, groups: list[list[str]], seed: int) -> list[Example]:
    """Return the row of a text, or none; what is drawn is drawn in a few places of a group, however large it is."""
    random = generator(seed, text, "hashtags")
    found: dict[str, None] = {}
    for group in groups:
        size = min(len(group), NEAREST)
        first = int(random.integers(len(group)))
        found |= dict.fromkeys(group[(first + step) % len(group)] for step in range(size))
    found.pop(text, None)
    others = list(found)
    if not others:
        return []
    chosen = {int(one) for one in random.permutation(len(others))[:POSITIVES]}
    positives = tuple(others[place] for place in sorted(chosen))
    masked = tuple(one for place, one in enumerate(others) if place not in chosen)
    return [Example(text, positives, not_negatives=(text, *masked))]
