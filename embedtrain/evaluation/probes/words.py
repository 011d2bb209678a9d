"""Which words a sparse model gives texts, and which it gives none or nearly all."""

from typing import ClassVar

import numpy as np

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish, first_texts
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.words import column_names
from embedtrain.sparse_vectors import UBIQUITOUS, SparseVectors

SHOWN_TEXTS, SHOWN_WORDS, COMMON_WORDS = 5, 8, 10


class Words(Probe):
    """Show the heaviest words of the first texts as documents, and count dead and ubiquitous ones over all."""

    name: ClassVar[str] = "words"
    needs_data: ClassVar[str] = "a .jsonl file with a column text, such as a corpus.jsonl"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Encode the first texts of a file and look at their entries.

        Raises:
            UserError: If the model is of another kind.
        """
        assert wish.data is not None
        if not isinstance(subject.model, SparseEncoder):
            raise UserError(
                "words", "looks at entries, which only sparse models have", got=subject.name
            )
        texts = first_texts(wish.data, wish.size)
        if not texts:
            raise UserError(wish.data, "holds no text", cure="Name another file")
        vectors = subject.encode(texts, "document")
        assert isinstance(vectors, SparseVectors)
        names = column_names(subject.model)
        return [*_heaviest(vectors, names), *_common(vectors, names), *_figures(vectors)]


def _heaviest(vectors: SparseVectors, names: list[str]) -> list[Finding]:
    found = []
    for number in range(min(SHOWN_TEXTS, len(vectors))):
        own = vectors.part(number, number + 1).heaviest(SHOWN_WORDS)
        for place in np.argsort(-own.values, kind="stable").tolist():
            word, weight = names[own.indices[place]], float(own.values[place])
            found.append(Finding(f"text {number + 1}", word, weight))
    return found


def _shares(vectors: SparseVectors) -> np.ndarray:
    """Return the share of the texts that have each word."""
    return np.bincount(vectors.indices, minlength=vectors.dim) / len(vectors)


def _common(vectors: SparseVectors, names: list[str]) -> list[Finding]:
    shares = _shares(vectors)
    first = np.argsort(-shares, kind="stable")[:COMMON_WORDS]
    return [
        Finding("share of texts", names[word], float(shares[word]))
        for word in first
        if shares[word] > 0
    ]


def _figures(vectors: SparseVectors) -> list[Finding]:
    shares, lengths = _shares(vectors), vectors.lengths
    figures = {
        "entries": lengths.mean(),
        "texts_without_entry": (lengths == 0).mean(),
        "dead_words": (shares == 0).mean(),
        "ubiquitous_words": (shares > UBIQUITOUS).sum(),
        "ubiquitous_entries": (shares[vectors.indices] > UBIQUITOUS).mean()
        if lengths.sum()
        else 0.0,
    }
    setting = f"{len(vectors)} texts, {vectors.dim} words"
    return [Finding(setting, name, float(value)) for name, value in figures.items()]
