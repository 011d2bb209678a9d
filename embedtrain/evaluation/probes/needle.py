"""Needles in texts of growing length: is one fact found that has nothing to do with the text around it?

Source: Zhu et al. (2024), https://arxiv.org/abs/2404.12096 (LongEmbed), whose facts a language model wrote
and whose texts are essays; facts and texts are made here, so figures are not theirs.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.probes.long_texts import hide, score_lengths
from embedtrain.evaluation.tasks.subject import Subject


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
