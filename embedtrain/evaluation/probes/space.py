"""How vectors fill their space: isotropy and effective rank, alarms of a collapse and nothing more."""

from typing import ClassVar

import numpy as np
import torch

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.diagnostics import (
    effective_rank,
    isotropy_score,
    mean_cosine,
    mean_norm,
    partition_ratio,
    uniformity,
)
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish, first_texts
from embedtrain.evaluation.tasks.subject import Subject, Vectors
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

UNIFORMITY_TEXTS = 2000
"""Texts of which all pairs are held at once."""


class Space(Probe):
    """Measure the vectors of texts as documents; late interaction is measured token by token."""

    name: ClassVar[str] = "space"
    needs_data: ClassVar[str] = "a .jsonl file with a column text, such as a corpus.jsonl"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Encode the first texts of a file and describe their vectors."""
        assert wish.data is not None
        texts = first_texts(wish.data, wish.size)
        vectors = subject.encode(texts, "document")
        tensor = torch.from_numpy(_rows(vectors).copy())
        if len(tensor) < 2:
            raise UserError(wish.data, "needs two texts at least", got=len(tensor))
        setting = f"{len(tensor)} vectors of {tensor.shape[1]} dimensions"
        figures = {
            "mean_cosine": mean_cosine(tensor),
            "isotropy_score": isotropy_score(tensor),
            "partition_ratio": partition_ratio(tensor),
            "effective_rank": effective_rank(tensor),
            "uniformity": uniformity(tensor[:UNIFORMITY_TEXTS]),
            "mean_norm": mean_norm(tensor),
        }
        return [Finding(setting, name, float(value)) for name, value in figures.items()]


def _rows(vectors: Vectors) -> np.ndarray:
    if isinstance(vectors, SparseVectors):
        return vectors.dense()
    return vectors.values if isinstance(vectors, TokenVectors) else vectors
