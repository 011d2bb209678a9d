"""What every probe offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from embedtrain.contract.texts import Template
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import Subject


@dataclass(frozen=True)
class Finding:
    """One figure of a probe."""

    setting: str
    """What was varied, such as a length."""
    metric: str
    value: float


@dataclass(frozen=True)
class ProbeWish:
    """What a user may set for a probe."""

    data: Path | None = None
    lengths: Sequence[int] = (64, 128, 256, 512)
    """Words of the texts, where a probe makes texts of growing length."""
    size: int = 50
    """Queries, documents or texts that a probe makes or draws."""
    seed: int = 0
    precision: float = 0.9
    """Of shown results, where a probe looks for the score to cut at."""
    template: Template = "instruct"
    """The form of instructions, where queries have their own."""


class Probe(ABC):
    """Measures one property of a model.

    A new probe is a new file in this folder with a subclass that sets ``name``.
    """

    name: ClassVar[str]
    needs_data: ClassVar[str] = ""
    """What ``--data`` must be; empty where the probe makes its own."""
    takes_data: ClassVar[str] = ""
    """What ``--data`` may be, where the probe has some of its own."""

    @classmethod
    @abstractmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Measure the model."""


def first_texts(path: Path, number: int) -> list[str]:
    """Read the first texts of a .jsonl file with a column ``text``.

    Raises:
        UserError: If a row has none.
    """
    texts: list[str] = []
    for place, row in read_objects(path):
        if not isinstance(row.get("text"), str):
            raise UserError(place, "has no text", got=sorted(row), cure="Name another file")
        texts.append(str(row["text"]))
        if len(texts) == number:
            break
    return texts
