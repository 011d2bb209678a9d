"""Linguistic probes: what a linear layer can read of a sentence from its vector, layer by layer.

Source: Conneau et al. (2018), https://arxiv.org/abs/1805.01070, whose sentences come from books; these are made by
rules, so figures do not compare with published ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from embedtrain.contract.texts import join_texts
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.labelled import scikit_learn
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder

NOUNS = ("cat", "dog", "bird", "child", "teacher", "farmer", "king", "sailor", "doctor", "writer")
VERBS = ("sees", "follows", "hears", "helps", "finds", "calls", "knows", "meets")
ADJECTIVES = ("old", "young", "tall", "quiet", "happy", "tired", "clever", "strange")
CONTENT = ("river", "garden", "market", "bridge", "castle", "forest")
FEWEST = 60
"""Sentences of a task at least: 40 to train a layer on, 20 to judge it."""
AT_ONCE = 64


@dataclass(frozen=True)
class Labelled:
    """Sentences of a task and their classes."""

    sentences: list[str]
    labels: list[int]

    @property
    def chance(self) -> float:
        """Share of the largest class."""
        return max(self.labels.count(label) for label in set(self.labels)) / len(self.labels)


class Linguistic(Probe):
    """Train a linear layer on two thirds of some made sentences and give its accuracy on the rest.

    ``length``: how many adjectives; ``content``: which of six places is named; ``order``: whether two neighbouring words
    changed places; ``depth``: how many clauses stand inside another. A dense model is read after every layer.
    """

    name: ClassVar[str] = "linguistic"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Read each task from every layer."""
        generator = np.random.Generator(np.random.PCG64(wish.seed))
        findings = []
        for name, make in TASKS.items():
            task = make(max(wish.size, FEWEST), generator)
            findings.append(Finding(name, "chance", task.chance))
            for layer, vectors in layer_vectors(subject, task.sentences).items():
                findings.append(
                    Finding(name, f"accuracy at {layer}", probe_accuracy(vectors, task.labels))
                )
        return findings


def layer_vectors(
    subject: Subject, texts: Sequence[str]
) -> dict[str, Float32[np.ndarray, "texts dim"]]:
    """Return the vectors after each layer of a dense model, the finished ones last; of others those alone."""
    model = subject.model
    finished = {"the end": subject.features(texts, "linguistic")}
    if not isinstance(model, DenseEncoder) or model.exits is not None or not model.is_portable:
        return finished
    layers = tuple(range(1, model.num_layers))
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), AT_ONCE):
            tokens = join_texts(model.tokenization(texts[start : start + AT_ONCE], "document"))
            parts.append(
                model.embed_layers(tokens.to(model.device), Execution(), layers).float().cpu()
            )
    blocks = torch.cat(parts).chunk(len(layers) + 1, dim=1)
    return {
        f"layer {layer}": block.numpy() for layer, block in zip(layers, blocks, strict=False)
    } | finished


def probe_accuracy(vectors: Float32[np.ndarray, "texts dim"], labels: Sequence[int]) -> float:
    """Return the accuracy of logistic regression on the last third, trained on the others."""
    middle = 2 * len(labels) // 3
    spread = vectors[:middle].std(0)
    scaled = (vectors - vectors[:middle].mean(0)) / np.where(spread == 0, 1, spread)
    layer = scikit_learn("linear_model", "to train a linear probe").LogisticRegression(
        max_iter=1000
    )
    guesses = layer.fit(scaled[:middle], labels[:middle]).predict(scaled[middle:]).tolist()
    return fmean(guess == label for guess, label in zip(guesses, labels[middle:], strict=True))


def _clause(generator: np.random.Generator, num_adjectives: int) -> str:
    first, second = generator.choice(NOUNS, 2, replace=False).tolist()
    some = generator.choice(ADJECTIVES, num_adjectives).tolist()
    return f"the {' '.join([*some, first])} {generator.choice(VERBS)} the {second}"


def make_length(number: int, generator: np.random.Generator) -> Labelled:
    """Sentences with 0, 3 or 6 adjectives."""
    labels = generator.integers(3, size=number).tolist()
    return Labelled([_clause(generator, 3 * label) for label in labels], labels)


def make_content(number: int, generator: np.random.Generator) -> Labelled:
    """Sentences that name one of six places."""
    labels = generator.integers(len(CONTENT), size=number).tolist()
    return Labelled(
        [f"{_clause(generator, 1)} near the {CONTENT[label]}" for label in labels], labels
    )


def make_order(number: int, generator: np.random.Generator) -> Labelled:
    """Sentences of which every second, by chance, has two neighbouring words in each other's place."""
    labels = generator.integers(2, size=number).tolist()
    sentences = []
    for label in labels:
        words = _clause(generator, 2).split()
        if label:
            place = int(generator.integers(len(words) - 1))
            words[place], words[place + 1] = words[place + 1], words[place]
        sentences.append(" ".join(words))
    return Labelled(sentences, labels)


def make_depth(number: int, generator: np.random.Generator) -> Labelled:
    """Sentences of one length with 0, 1 or 2 clauses one inside the other; the other clauses stand side by side."""
    labels = generator.integers(3, size=number).tolist()
    sentences = []
    for label in labels:
        nouns = [f"the {noun}" for noun in generator.choice(NOUNS, 4, replace=False)]
        verbs = generator.choice(VERBS, 3, replace=False).tolist()
        parts = [f"{verb} {noun}" for verb, noun in zip(verbs, nouns[1:], strict=True)]
        inside, beside = parts[:label], parts[label:]
        sentences.append(" ".join([" that ".join([nouns[0], *inside]), " and ".join(beside)]))
    return Labelled(sentences, labels)


TASKS = {"length": make_length, "content": make_content, "order": make_order, "depth": make_depth}
