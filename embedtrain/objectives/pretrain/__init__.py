"""Pre-training objectives: one file each, found by their class, no table to edit.

They get what a masked autoencoder gives. Start with ``base.py``.
"""

from typing import TYPE_CHECKING

from embedtrain.objectives.own import any_objective, find_objectives
from embedtrain.objectives.pretrain.base import PretrainObjective

PRETRAIN_OBJECTIVES = find_objectives(__name__, __path__, PretrainObjective)  # type: ignore[type-abstract]
"""Every pre-training objective by its name in a recipe."""

if TYPE_CHECKING:
    AnyPretrainObjective = PretrainObjective
else:
    AnyPretrainObjective = any_objective(PRETRAIN_OBJECTIVES, PretrainObjective)

__all__ = ["PRETRAIN_OBJECTIVES", "AnyPretrainObjective", "PretrainObjective"]
