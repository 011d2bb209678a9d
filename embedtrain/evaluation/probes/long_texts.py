"""Texts of growing length, in which a query asks for one sentence among others.

A passkey is a number of a person, a needle a fact about a town: does a model see the end of what it claims to
read, and is one fact found that has nothing to do with the text around it?

Source: Zhu et al. (2024), https://arxiv.org/abs/2404.12096 (LongEmbed), whose facts a language model wrote
and whose texts are essays; facts and texts are made here, so figures are not theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import fmean
from typing import ClassVar

import numpy as np

from embedtrain.contract.texts import Tokenization
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.encoder import TextEncoder

METRIC = "ndcg_at_1"
"""Of one relevant document, so the share of queries whose document comes first."""
MakeTexts = Callable[[int, int, int], tuple[list[str], list[str]]]
"""Makes queries and documents of a length in words, for a number of queries and a seed; document ``i``
answers query ``i``, and those behind answer none."""


def score_lengths(subject: Subject, wish: ProbeWish, make: MakeTexts) -> list[Finding]:
    """Search at each length, and average over the lengths that the model reads whole, where there are any."""
    findings, whole = [], []
    window = subject.model.contract.document_length
    for length in wish.lengths:
        queries, documents = make(length, wish.size, wish.seed)
        found = subject.search(queries, documents, 1, "query")
        value = float(np.mean(found.indices[:, 0] == np.arange(len(queries))))
        findings.append(Finding(f"{length} words", METRIC, value))
        if fits_window(subject.model, documents):
            whole.append(value)
    if whole:
        setting = f"mean of lengths within {window} tokens: {len(whole)} of {len(findings)}"
        findings.append(Finding(setting, METRIC, fmean(whole)))
    return findings


def fits_window(model: TextEncoder, documents: Sequence[str]) -> bool:
    """Whether no document has more tokens than the contract's length."""
    window = model.contract.document_length
    # One token more than is kept is enough to see that something would be cut.
    longer = model.contract.model_copy(update={"document_length": window + 1})
    return all(
        len(ids) <= window for ids in Tokenization(model.tokenizer, longer)(documents, "document")
    )


def hide(sentence: str, filler: Sequence[str], length: int, rng: np.random.Generator) -> str:
    """Put a sentence at a random place among so many words of filler that ``length`` words result.

    The filler begins again where it is too short; a sentence longer than ``length`` stands alone.
    """
    words = list(islice(cycle(filler), max(0, length - len(sentence.split()))))
    place = int(rng.integers(len(words) + 1))
    return " ".join([*words[:place], sentence, *words[place:]])


@dataclass(frozen=True)
class Topic:
    """What can be said of a town, and how it is asked for."""

    question: str
    fact: str
    answers: tuple[str, ...]


TOPICS = (
    Topic(
        "What is the best thing to do in {}?",
        "The best thing to do in {} is to {}.",
        (
            "row across the lake",
            "climb the old tower",
            "walk along the river",
            "visit the night market",
        ),
    ),
    Topic(
        "What is the town of {} known for?",
        "The town of {} is known for its {}.",
        ("glass bells", "salted plums", "wooden bridges", "blue pottery"),
    ),
    Topic(
        "Who built the lighthouse of {}?",
        "The lighthouse of {} was built by {}.",
        ("a retired sailor", "two sisters", "a monk", "the guild of bakers"),
    ),
    Topic(
        "When does the library in {} close?",
        "The library in {} closes at {}.",
        ("noon", "four o'clock", "half past six", "nine in the evening"),
    ),
    Topic(
        "Which animal is on the flag of {}?",
        "The animal on the flag of {} is {}.",
        ("an otter", "a heron", "a black goat", "a sleeping fox"),
    ),
    Topic(
        "What do people in {} eat on the first day of the year?",
        "On the first day of the year people in {} eat {}.",
        ("lentil soup", "smoked trout", "rice with saffron", "honey cake"),
    ),
    Topic(
        "Why was the railway to {} given up?",
        "The railway to {} was given up because of {}.",
        ("a flood", "the price of coal", "a quarrel about land", "falling rocks"),
    ),
    Topic(
        "Which instrument is taught at the school in {}?",
        "The school in {} teaches every child to play the {}.",
        ("harp", "trumpet", "accordion", "cello"),
    ),
)
STEMS = """
    Alder Amber Birken Bram Cald Cors Dun Elm Fenn Garth Hal Ives Kel Lang Marl Nether
    Oster Pen Quar Raven Sel Thorn Ulver Wend
"""
ENDINGS = "beck borough bury dale field ford ham haven mere stead ton wick"
TOWNS = [stem + ending for stem in STEMS.split() for ending in ENDINGS.split()]
FILLER = (
    "Most people who start a company spend the first year learning what their customers want.",
    "It is easier to write a long letter than a short one.",
    "Good tools disappear when you use them and only the work remains.",
    "The best ideas often look small in the beginning.",
    "A programmer who reads the work of others learns more than one who only writes.",
    "Nobody can tell in advance which questions will turn out to matter.",
    "When a plan fails it is worth asking whether the goal was right.",
    "Students are taught to answer but seldom to ask.",
    "There is a kind of work that grows more interesting the longer one does it.",
    "Money is a poor measure of what a thing is worth to those who made it.",
    "Anyone can be busy, but it takes care to be useful.",
    "What looks like talent is often a habit of paying attention.",
    "An essay is a way to find out what you think.",
    "Large organisations forget faster than the people in them.",
    "If two explanations fit, take the one that is easier to test.",
    "Few things are as persuasive as a working example.",
    "The cost of a meeting is paid by everyone who did not need to be there.",
    "Old machines are repaired by people who still remember why they were built.",
    "To teach a subject well one must have been confused by it once.",
    "Taste changes slowly and then all at once.",
    "Every rule was somebody's experience before it became a rule.",
    "It helps to describe a problem to someone who knows nothing about it.",
    "Speed matters less than going in the right direction.",
    "The hardest part of finishing is to stop improving.",
)


class Needle(Probe):
    """Ask for a fact about a town, which stands at a random place of one document among others like it.

    nDCG@1 is the share of facts that are found; half of the documents are distractors with other facts. The
    sentences around a fact are the same few in an order of their own, again and again in long documents.
    """

    name: ClassVar[str] = "needle"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search at each length."""
        return score_lengths(subject, wish, make_needles)


def make_needles(length: int, size: int, seed: int) -> tuple[list[str], list[str]]:
    """Make queries and documents of about ``length`` words; document ``i`` holds the fact for query ``i``.

    Raises:
        UserError: If there are not twice as many facts as queries.
    """
    pairs = [(topic, town) for topic in TOPICS for town in TOWNS]
    if 2 * size > len(pairs):
        raise UserError(
            "--size",
            "is more than there are facts for",
            got=size,
            cure=f"Use {len(pairs) // 2} at most",
        )
    rng = np.random.Generator(np.random.PCG64([seed, length]))
    queries, documents = [], []
    for place in rng.choice(len(pairs), 2 * size, replace=False).tolist():
        topic, town = pairs[place]
        fact = topic.fact.format(town, rng.choice(topic.answers))
        documents.append(hide(fact, " ".join(rng.permutation(FILLER)).split(), length, rng))
        queries.append(topic.question.format(town))
    return queries[:size], documents


GRASS = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NAMES = "Anna Boris Clara David Elena Farid Greta Hugo Irene Jonas Karin Leo Mira Nils Olga Paul"


class Passkey(Probe):
    """Ask for the key of a person, which stands at a random place of one document among others like it.

    nDCG@1 is the share of keys that are found; half of the documents are distractors with other names.
    """

    name: ClassVar[str] = "passkey"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search at each length."""
        return score_lengths(subject, wish, make_passkeys)


def make_passkeys(length: int, size: int, seed: int) -> tuple[list[str], list[str]]:
    """Make queries and documents of about ``length`` words; document ``i`` holds the key of query ``i``."""
    rng = np.random.Generator(np.random.PCG64([seed, length]))
    names = NAMES.split()
    people = [
        f"{names[n % len(names)]} {names[n // len(names) % len(names)]}{n}" for n in range(2 * size)
    ]
    documents = []
    for person in people:
        key = f"The pass key of {person} is {rng.integers(10_000, 99_999)}. Remember it."
        documents.append(hide(key, GRASS.split(), length, rng))
    return [f"what is the pass key for {person}?" for person in people[:size]], documents
