"""Pre-training objectives: one file each, found by their class, no table to edit.

They get what a masked autoencoder gives. Start with ``base.py``.
"""

import importlib
import pkgutil
from inspect import isabstract
from typing import TYPE_CHECKING, get_args

from embedtrain.objectives.own import any_objective
from embedtrain.objectives.pretrain.base import PretrainObjective

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

PRETRAIN_OBJECTIVES: dict[str, type[PretrainObjective]] = {
    get_args(cls.model_fields["name"].annotation)[0]: cls
    for cls in PretrainObjective.__subclasses__()
    if not isabstract(cls)
}
"""Every pre-training objective by its name in a recipe."""

if TYPE_CHECKING:
    AnyPretrainObjective = PretrainObjective
else:
    AnyPretrainObjective = any_objective(PRETRAIN_OBJECTIVES, PretrainObjective)

__all__ = ["PRETRAIN_OBJECTIVES", "AnyPretrainObjective", "PretrainObjective"]
