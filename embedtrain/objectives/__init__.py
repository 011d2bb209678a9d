"""Training objectives: one file each, found by their class, no table to edit; others are named as ``module:Class``.

An objective gets embeddings and gives a loss; it imports no model, no rank and no other objective. Start with
``base.py``, then ``info_nce.py``.
"""

import importlib
import pkgutil
from inspect import isabstract
from typing import TYPE_CHECKING, get_args

from embedtrain.objectives.base import Objective
from embedtrain.objectives.own import any_objective

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

OBJECTIVES: dict[str, type[Objective]] = {
    get_args(cls.model_fields["name"].annotation)[0]: cls
    for cls in Objective.__subclasses__()
    if not isabstract(cls)
}
"""Every objective by its name in a recipe."""

if TYPE_CHECKING:
    AnyObjective = Objective
else:
    AnyObjective = any_objective(OBJECTIVES, Objective)
    for _objective in OBJECTIVES.values():  # those that hold others could not know them before
        _objective.model_rebuild(_types_namespace={"AnyObjective": AnyObjective})

__all__ = ["OBJECTIVES", "AnyObjective", "Objective"]
