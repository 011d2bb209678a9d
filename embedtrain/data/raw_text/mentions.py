"""Mentions of known names in plain text, each with its context, its span marked and its entity as its label (KRISS)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from embedtrain.contract.spans import mark
from embedtrain.data.documents.document import Document
from embedtrain.data.draw import generator
from embedtrain.data.examples import Example, SourceConfig
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.data.words import WORD, words_of
from embedtrain.errors import UserError

CONTEXT_WORDS = 32
"""Words on either side of a mention that its text keeps."""
HIDDEN = "[MASK]"
"""What stands for a name that is hidden: the context alone must tell."""


@dataclass(frozen=True)
class Ontology:
    """Which entity a name means, by the words of the name; the entities are numbered in the order of the file."""

    entities: Mapping[tuple[str, ...], int]
    longest: int
    """Words of the longest name."""

    @classmethod
    def read(cls, path: Path) -> "Ontology":
        """Read a JSON Lines file of ``{"entity": "Q1", "names": ["aspirin", "acetylsalicylic acid"]}``.

        A name of two entities tells of neither, and is left out.

        Raises:
            UserError: If a row is another thing, or no name is left.
        """
        numbers: dict[str, int] = {}
        found: dict[tuple[str, ...], set[int]] = {}
        for place, row in read_objects(path):
            names, entity = row.get("names"), row.get("entity")
            if not isinstance(names, list) or not isinstance(entity, str) or not _are_texts(names):
                cure = 'Write {"entity": "...", "names": ["...", ...]}'
                raise UserError(place, "is no entity with names", got=row, cure=cure)
            number = numbers.setdefault(entity, len(numbers))
            for name in names:
                if words := words_of(name):
                    found.setdefault(words, set()).add(number)
        entities = {words: min(own) for words, own in found.items() if len(own) == 1}
        if not entities:
            cure = "Give names that mean one entity each"
            raise UserError(path, "holds no name of one entity alone", cure=cure)
        return cls(entities, max(map(len, entities)))

    def find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Yield where names begin and end and the number of their entity; of names that overlap the longer one."""
        words = list(WORD.finditer(text))
        keys = [words_of(word[0]) for word in words]
        place = 0
        while place < len(words):
            for length in range(min(self.longest, len(words) - place), 0, -1):
                key = tuple(part for one in keys[place : place + length] for part in one)
                if (number := self.entities.get(key)) is not None:
                    yield words[place].start(), words[place + length - 1].end(), number
                    place += length - 1
                    break
            place += 1


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def mentions(document: Document, config: SourceConfig, ontology: Ontology) -> list[Example]:
    """Return the mentions of a document: a text with a marked span on both sides, its entity as its score.

    With a probability of ``config.mask_ratio`` all names of the entity are hidden in both texts: the same context with
    its name would be a positive that is found by its words. Other texts of the entity are positives where the objective
    goes by labels.

    Source: Zhang et al. (2021), KRISS, https://arxiv.org/abs/2112.07887; the probability is not stated there.
    """
    found = list(ontology.find(document.text))
    return [_row(document, found, config, number) for number in range(len(found))]


def _row(
    document: Document, found: list[tuple[int, int, int]], config: SourceConfig, number: int
) -> Example:
    begin, end, entity = found[number]
    start = _nth_last_word(document.text[:begin])
    stop = end + _nth_word_end(document.text[end:])
    random = generator(config.draw_seed, document.id, "mask", number)
    hides = random.random() < config.mask_ratio
    names = [one[:2] for one in found if one[2] == entity] if hides else []
    before = _hidden(document.text, start, begin, names).lstrip()
    after = _hidden(document.text, end, stop, names).rstrip()
    name = HIDDEN if hides else document.text[begin:end]
    text = mark(f"{before}{name}{after}", [len(before), len(before) + len(name)])
    return Example(text, (text,), scores=(float(entity),))


def _hidden(text: str, start: int, stop: int, names: list[tuple[int, int]]) -> str:
    """Return a part of a text without the names that begin in it."""
    parts, place = [], start
    for begin, end in names:
        if start <= begin < stop:
            parts += [text[place:begin], HIDDEN]
            place = end
    return "".join([*parts, text[place:stop]])


def _nth_last_word(text: str) -> int:
    starts = [found.start() for found in re.finditer(r"\S+", text)]
    return starts[-CONTEXT_WORDS] if len(starts) > CONTEXT_WORDS else 0


def _nth_word_end(text: str) -> int:
    ends = [found.end() for found in islice(re.finditer(r"\S+", text), CONTEXT_WORDS)]
    return ends[-1] if ends else 0
