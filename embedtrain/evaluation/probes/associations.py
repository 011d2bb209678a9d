"""Associations: do words of one kind lie nearer to one idea than those of another kind, alone and in sentences?

The lists that come with it are of flowers and insects, pleasant and unpleasant. Lists about people are the user's,
with their sources. A small effect is no evidence that a model treats groups alike: a dozen words find only large ones.

Source: Caliskan et al. (2017), https://arxiv.org/abs/1608.07187 (words); May et al. (2019),
https://arxiv.org/abs/1903.10561 (sentences); Tan and Celis (2019), https://arxiv.org/abs/1911.01485, who also take
the vector of the word within its sentence, which is not done here.
"""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, ValidationError, model_validator

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.associations import (
    associations,
    effect_size,
    partition_p_value,
)
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import read_json
from embedtrain.section import Section

Words = Annotated[tuple[str, ...], Field(min_length=2)]
TEMPLATES = ("This is about {}.", "They talked of {}.", "The word is {}.", "{} again.")
"""Sentences that say nothing of the word."""


class WordLists(Section):
    """Two sets of words of the same size, and the two ideas that they may lie near to."""

    targets: Annotated[dict[str, Words], Field(min_length=2, max_length=2)]
    """Names and words of what is compared."""
    attributes: Annotated[dict[str, Words], Field(min_length=2, max_length=2)]
    """Names and words of both ideas."""

    @model_validator(mode="after")
    def _of_one_size(self) -> "WordLists":
        first, second = (len(words) for words in self.targets.values())
        if first != second:
            raise ValueError(f"targets have {first} and {second} words: give as many of both")
        return self


NEUTRAL = WordLists(
    targets={
        "flowers": ("rose", "tulip", "daisy", "lily", "orchid", "violet", "poppy", "iris"),
        "insects": ("ant", "flea", "wasp", "moth", "beetle", "spider", "roach", "gnat"),
    },
    attributes={
        "pleasant": ("love", "peace", "joy", "friend", "gift", "laughter", "honest", "happy"),
        "unpleasant": ("hatred", "war", "pain", "enemy", "filth", "murder", "ugly", "sickness"),
    },
)


class WordAssociations(Probe):
    """Give the effect size and p of both sets of words, alone and in sentences that say nothing of them.

    The deviation of an effect is over sentences: where it is as large as the effect, the effect is one of wording.
    """

    name: ClassVar[str] = "associations"
    takes_data: ClassVar[str] = (
        'a .json file {"targets": {NAME: [words], NAME: [words]}, "attributes": {NAME: [words], NAME: [words]}}'
    )

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Encode the words in each form."""
        lists = NEUTRAL if wish.data is None else read_lists(wish)
        (first, second), ideas = lists.targets, lists.attributes
        setting = f"{first} to {next(iter(ideas))}, {second} to {list(ideas)[1]}"
        alone = _measure(subject, lists, "{}", wish.seed)
        framed = [_measure(subject, lists, template, wish.seed) for template in TEMPLATES]
        effects = [effect for effect, _ in framed]
        return [
            Finding(f"{setting}: words", "effect", alone[0]),
            Finding(f"{setting}: words", "p", alone[1]),
            Finding(f"{setting}: sentences", "effect", fmean(effects)),
            Finding(f"{setting}: sentences", "deviation of the effect", stdev(effects)),
            Finding(f"{setting}: sentences", "largest p", max(p_value for _, p_value in framed)),
        ]


def read_lists(wish: ProbeWish) -> WordLists:
    """Read the lists of a file.

    Raises:
        UserError: If it has not the form of such lists.
    """
    assert wish.data is not None
    try:
        return WordLists.model_validate(read_json(wish.data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        cure = f"Give {WordAssociations.takes_data}"
        raise UserError(
            wish.data, f"is no pair of word lists ({where}: {first['msg']})", cure=cure
        ) from error


def _measure(subject: Subject, lists: WordLists, template: str, seed: int) -> tuple[float, float]:
    """Return the effect and its p with every word in a sentence."""
    sets: list[Sequence[str]] = [*lists.targets.values(), *lists.attributes.values()]
    texts = [template.format(word) for words in sets for word in words]
    vectors = subject.features(texts, "associations").astype(np.float64)
    ends = np.cumsum([len(words) for words in sets])[:-1]
    one, other, near, far = np.split(vectors, ends)
    first, second = associations(one, near, far), associations(other, near, far)
    generator = np.random.Generator(np.random.PCG64(seed))
    return effect_size(first, second), partition_p_value(first, second, generator)
