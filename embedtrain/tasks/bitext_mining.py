"""Bitext mining: find the translation of each sentence among those of all others."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from embedtrain.evaluation.metrics import PerQuery
from embedtrain.tasks.base import Outcome, Task
from embedtrain.tasks.files import TaskFiles, item_ids, read_rows
from embedtrain.tasks.sts import pair_texts
from embedtrain.tasks.subject import Subject


class BitextMining(Task):
    r"""Search for each ``sentence1`` the nearest ``sentence2``.

    ``f1`` is MTEB's: the F1 of each sentence as a class of its own, $2 / (1 + n)$ for a translation that
    was found and is named for n sentences, else 0.
    """

    kind: ClassVar[str] = "bitext_mining"
    needs: ClassVar[str] = "rows {sentence1, sentence2}, translations of each other"

    def __init__(self, files: TaskFiles, rows: list[dict[str, Any]]) -> None:
        self.files = files
        self.rows = rows
        self.ids = item_ids(files.path, rows)
        self.data = files.described("bitext_mining", len(rows), len(rows))

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold two sentences and no judgment."""
        found = files.columns
        return {"sentence1", "sentence2"} <= found and not {"score", "label"} & found

    @classmethod
    def open(cls, files: TaskFiles) -> "BitextMining":
        """Read the pairs."""
        return cls(files, read_rows(files.path, {"sentence1": str, "sentence2": str}))

    def run(self, subject: Subject) -> Outcome:
        """Search the nearest sentence of the other language."""
        found = subject.search(
            [row["sentence1"] for row in self.rows],
            [row["sentence2"] for row in self.rows],
            1,
            "symmetric",
        ).indices[:, 0]
        return Outcome(bitext_scores(found, self.ids))

    @property
    def item_file(self) -> Path:
        """The file of the pairs."""
        return self.files.path

    @property
    def texts(self) -> dict[str, str]:
        """Item to both sentences."""
        return pair_texts(self.ids, self.rows)


def bitext_scores(found: Int64[np.ndarray, " pairs"], items: list[str]) -> PerQuery:
    """Score the row that was found for each row; its own is the right one."""
    right = found == np.arange(len(found))
    named = np.bincount(found, minlength=len(found))
    f1 = np.where(right, 2 / (1 + named), 0.0)
    return {
        "f1": dict(zip(items, f1.tolist(), strict=True)),
        "accuracy": dict(zip(items, right.astype(float).tolist(), strict=True)),
    }
