"""Score weights on the data that decide and on those that are guarded; what was scored before is not again."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.base import Task
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import read_json, write_json
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision, choose
from embedtrain.training.validation import METRIC, score_task
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_task
from embedtrain.workflows.merge import main_score


@dataclass(frozen=True)
class Judge:
    """Scores models.

    Attributes:
        task: The queries that decide.
        guards: Data that must not lose.
        cache: Where scores are kept, so that a selection that was stopped goes on.
        precision: What texts are encoded in.
    """

    task: RetrievalTask
    guards: Sequence[Task]
    cache: Path
    precision: Precision = "auto"

    def decides(self, model: TextEncoder) -> list[float]:
        """Return the main score of each query."""
        place = self._place(model, self.task.fingerprint)
        known = _read(place, len(self.task.qrels))
        if known is None:
            found = score_task(model, self.task, self.precision)[METRIC]
            known = list(found.values())
            write_json(place, known)
        return known

    def guarded(self, model: TextEncoder) -> dict[str, float]:
        """Return the main score on each guarded data set."""
        return {_name(task): self._guard(model, task) for task in self.guards}

    def _guard(self, model: TextEncoder, task: Task) -> float:
        place = self._place(model, task.data.fingerprint)
        known = _read(place, 1)
        if known is None:
            with tempfile.TemporaryDirectory() as vectors:  # nobody asks for them again
                subject = Subject(model, "candidate", Path(vectors), precision=self.precision)
                result = evaluate_task(subject, task, Wish([], efficiency=False))[0]
            known = [main_score(result)]
            write_json(place, known)
        return known[0]

    def _place(self, model: TextEncoder, data: str) -> Path:
        chosen = choose(self.precision, model.device.type)
        name = hashlib.sha256(f"{model_key(model)} {data} {chosen}".encode()).hexdigest()
        return self.cache / "selected" / f"{name[:32]}.json"


def _read(place: Path, number: int) -> list[float] | None:
    """Return the scores that a file keeps; None where there is none, or somebody else wrote it."""
    try:
        known = read_json(place, optional=True)
    except UserError:
        return None
    if not isinstance(known, list) or len(known) != number:
        return None
    return known if all(isinstance(one, float) for one in known) else None


def _name(task: Task) -> str:
    return f"{task.data.name} {task.data.split}"
