"""Training objectives: one file each, found by their class, no table to edit; others are named as ``module:Class``.

An objective gets embeddings and gives a loss; it imports no model, no rank and no other objective. Start with
``base.py``, then ``info_nce.py``.
"""

from typing import TYPE_CHECKING

from embedtrain.objectives.base import Objective
from embedtrain.objectives.own import any_objective, find_objectives, try_on_pairs

OBJECTIVES: dict[str, type[Objective]] = find_objectives(__name__, __path__, Objective)  # type: ignore[type-abstract]
"""Every objective by its name in a recipe."""

if TYPE_CHECKING:
    AnyObjective = Objective
else:
    AnyObjective = any_objective(OBJECTIVES, Objective, try_on_pairs)
    for _objective in OBJECTIVES.values():  # those that hold others could not know them before
        _objective.model_rebuild(_types_namespace={"AnyObjective": AnyObjective})

__all__ = ["OBJECTIVES", "AnyObjective", "Objective"]
