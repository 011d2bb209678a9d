"""What sources that search with a model share: how they are named, and how an index answers for what it finds."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from embedtrain.errors import UserError
from embedtrain.mining.search import SPARE, CandidateSource, EncodedTask, SearchFunction, best_first
from embedtrain.section import Section


class ModelSearch(Section):
    """Candidates that a model finds."""

    model: str | None = None
    """Model folder or Hub id; null is the teacher, the model given to the command."""
    quota: PositiveFloat = 1.0
    """Share of the candidates, relative to the other sources'."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """Of the exact results at ``depth``; an index that finds less is refused."""


def open_index(
    config: ModelSearch,
    name: str,
    encoded: EncodedTask,
    find: SearchFunction,
    report: dict[str, object],
    *,
    kind: str,
    recall: float,
) -> CandidateSource:
    """Make a source of an index whose recall was measured; what it finds is scored exactly.

    Args:
        config: The source's settings.
        name: The source's name.
        encoded: Scores what is found.
        find: Searches the index.
        report: What the manifest says of the source, but for the recall.
        kind: Of the index.
        recall: Share of the exact results that it finds.

    Raises:
        UserError: If the index finds too little.
    """
    if recall < config.min_recall:
        raise UserError(
            "index",
            f"finds only {recall:.3f} of the exact results, less than min_recall",
            got=kind,
            cure="Give it more effort, search exactly, or lower min_recall",
        )

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        found = find(rows, depth + SPARE)
        return best_first(found, encoded.score(rows, found), depth)

    return CandidateSource(name, config.quota, search, report | {"recall": round(recall, 6)})
