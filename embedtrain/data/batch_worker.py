"""A process that builds batches for another one; :mod:`embedtrain.training.ahead` starts it.

Questions name a file that holds what draws, cuts and builds, a step and a number in the step.
"""

import pickle
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embedtrain.packed import Parcel
from embedtrain.workers import answer_all


@cache
def _read(path: Path) -> Any:  # noqa: ANN401 - a mixture, a cut and a builder
    return pickle.loads(path.read_bytes())


def build(question: bytes) -> bytes:
    """Return the batch that a question asks for, as a pickled parcel."""
    path, step, number = pickle.loads(question)
    mixture, cut, builder = _read(path)
    return pickle.dumps(Parcel.of(builder(cut.part(mixture.draw(step), number))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    answer_all(build)
