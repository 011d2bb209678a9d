"""Classification: a linear probe on frozen vectors, trained on a few examples of each label."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Outcome, Task
from embedtrain.evaluation.tasks.files import TaskFiles
from embedtrain.evaluation.tasks.labelled import LabelledTexts, scikit_learn
from embedtrain.evaluation.tasks.subject import Subject

EXAMPLES_PER_LABEL = 8
NUM_PROBES = 10
SEED = 42


class Classification(Task):
    """Train ten probes on eight examples of each label and average their accuracy, as MTEB does.

    The examples, the seed and the regression (scikit-learn's, 100 iterations) are MTEB's too. An item's
    accuracy is the share of the probes that were right on it.
    """

    kind: ClassVar[str] = "classification"
    needs: ClassVar[str] = "rows {text, label} with the training rows beside them (x.train.jsonl)"

    def __init__(self, files: TaskFiles) -> None:
        if files.training is None:
            raise UserError(
                files.path,
                "has no training rows beside it",
                cure="Add the file of the same name with train in place of the split",
            )
        self.training = LabelledTexts(files.training)
        self.test = LabelledTexts(files.path)
        if unknown := sorted(set(self.test.labels) - set(self.training.labels)):
            raise UserError(
                files.path, "has labels that no training row has", got=unknown[0], cure="Drop them"
            )
        self.data = files.described("classification", len(self.test), len(self.training))
        self.item_file, self.texts = files.path, self.test.by_id

    @classmethod
    def recognises(cls, files: TaskFiles) -> bool:
        """Whether rows hold a text and a label, and training rows lie beside them."""
        return {"text", "label"} <= files.columns and files.training is not None

    def run(self, subject: Subject) -> Outcome:
        """Train the probes and let them label every item."""
        probe_of = scikit_learn("linear_model", "to train a linear probe").LogisticRegression
        rows = draw_examples(self.training.labels)
        used = sorted({row for chosen in rows for row in chosen})
        vectors = subject.features([self.training.texts[row] for row in used], self.kind)
        vector_of = dict(zip(used, vectors, strict=True))
        items = subject.features(self.test.texts, self.kind)
        expected = np.array(self.test.labels)
        right: Float64[np.ndarray, " items"] = np.zeros(len(expected))
        for chosen in rows:
            probe = probe_of(max_iter=100, random_state=SEED)
            labels = [self.training.labels[row] for row in chosen]
            _fit(probe, np.stack([vector_of[row] for row in chosen]), labels)
            right += probe.predict(items) == expected
        accuracy = (right / len(rows)).tolist()
        return Outcome({"accuracy": dict(zip(self.test.ids, accuracy, strict=True))})


def draw_examples(labels: list[str]) -> list[list[int]]:
    """Draw the training rows of each probe: the first few of each label in a shuffled order."""
    order = list(range(len(labels)))
    drawn = []
    for _ in range(NUM_PROBES):
        # The order is shuffled on and on by a generator that starts anew, as MTEB does.
        np.random.RandomState(SEED).shuffle(order)
        counts: dict[str, int] = {}
        chosen = []
        for row in order:
            if counts.get(labels[row], 0) < EXAMPLES_PER_LABEL:
                chosen.append(row)
                counts[labels[row]] = counts.get(labels[row], 0) + 1
        drawn.append(chosen)
    return drawn


def _fit(probe: "object", vectors: np.ndarray, labels: list[str]) -> None:
    """Fit a probe; stopping at 100 iterations is part of the protocol, not worth a warning."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.fit(vectors, labels)  # type: ignore[attr-defined]
