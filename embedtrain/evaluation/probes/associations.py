"""Associations: do words of one kind lie nearer to one idea than those of another kind, alone and in sentences?

The lists that come with it are of flowers and insects, pleasant and unpleasant. Lists about people are the user's,
with their sources. A small effect is no evidence that a model treats groups alike: a dozen words find only large ones.

Source: Caliskan et al. (2017), https://arxiv.org/abs/1608.07187 (words); May et al. (2019),
https://arxiv.org/abs/1903.10561 (sentences); Tan and Celis (2019), https://arxiv.org/abs/1911.01485 (the word within its
sentence).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, ValidationError, model_validator

from embedtrain.contract.spans import mark
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.associations import (
    associations,
    effect_size,
    partition_p_value,
)
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import read_json
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.late_chunking import pools_plain_means
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

    Of a model that averages token states, or has vectors for spans, also of the words within these sentences: of the
    states of their own tokens.

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
        findings = [
            Finding(f"{setting}: words", "effect", alone[0]),
            Finding(f"{setting}: words", "p", alone[1]),
            *_framed(subject, lists, wish.seed, f"{setting}: sentences"),
        ]
        within = of_spans(subject)
        if within is not None:
            what = f"{setting}: words in sentences"
            findings += _framed(within, lists, wish.seed, what, marked=True)
        return findings


def of_spans(subject: Subject) -> Subject | None:
    """Return a model with vectors of marked words, the means of their tokens' states; None where it has none."""
    model = subject.model
    if not isinstance(model, DenseEncoder):
        return None
    if model.contract.spans is not None:
        return subject
    if not pools_plain_means(model):
        return None
    view = copy.copy(model)
    view.contract = model.contract.model_copy(update={"spans": "mean"})
    return replace(subject, model=view)


def _framed(
    subject: Subject, lists: WordLists, seed: int, setting: str, *, marked: bool = False
) -> list[Finding]:
    """Measure the words in every sentence."""
    found = [_measure(subject, lists, template, seed, marked=marked) for template in TEMPLATES]
    effects = [effect for effect, _ in found]
    return [
        Finding(setting, "effect", fmean(effects)),
        Finding(setting, "deviation of the effect", stdev(effects)),
        Finding(setting, "largest p", max(p_value for _, p_value in found)),
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


def _measure(
    subject: Subject, lists: WordLists, template: str, seed: int, *, marked: bool = False
) -> tuple[float, float]:
    """Return the effect and its p with every word in a sentence, of which it may be the marked span."""
    sets: list[Sequence[str]] = [*lists.targets.values(), *lists.attributes.values()]
    texts = [template.format(word) for words in sets for word in words]
    if marked:
        start, words = template.index("{}"), (word for several in sets for word in several)
        texts = [
            mark(text, [start, start + len(word)]) for text, word in zip(texts, words, strict=True)
        ]
    vectors = subject.features(texts, "associations").astype(np.float64)
    ends = np.cumsum([len(words) for words in sets])[:-1]
    one, other, near, far = np.split(vectors, ends)
    first, second = associations(one, near, far), associations(other, near, far)
    generator = np.random.Generator(np.random.PCG64(seed))
    return effect_size(first, second), partition_p_value(first, second, generator)
