"""Whether a file's tensors are those that a module computes with: each there, of its shape, finite."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.folder_files import IndexFile, read_form
from embedtrain.outside import reading

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CURE = "Take the whole model from one place"
SHOWN = 5
"""Names that a message shows."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """A tensor of a file, known by its header: nothing of it is in memory."""

    shape: Shape
    dtype: str
    """As safetensors calls it: ``F32``, ``BF16``, ``I64``."""

    @property
    def is_float(self) -> bool:
        """Whether it holds numbers with a fraction."""
        return "F" in self.dtype


def judge(
    place: object,
    *,
    missing: Iterable[str] = (),
    further: Iterable[str] = (),
    other: Mapping[str, tuple[Shape, Shape]] | None = None,
    cure: str = CURE,
    exact: bool = False,
) -> None:
    """Refuse weights that a module cannot compute with; name in a warning those it has no use for.

    Args:
        place: Where the weights are.
        missing: Names that the module uses and the file lacks.
        further: Names that the file has and the module does not.
        other: Shape in the file and in the module, where they differ.
        cure: What to do about it.
        exact: Refuse ``further`` ones as well: only embedtrain writes such a file, so it is another module's.

    Raises:
        UserError: If tensors are missing, or are of another shape.
    """
    if lacked := sorted(missing):
        problem = f"lacks {len(lacked)} {_tensors(lacked)} that the model computes with"
        raise UserError(place, f"{problem}: {_named(lacked)}", cure=cure)
    if other:
        name = min(other)
        found, wanted = other[name]
        problem = f"holds {name} of another shape than the model's, {list(wanted)}"
        raise UserError(place, problem, got=list(found), cure=cure)
    if unused := sorted(further):
        names = _named(unused)
        if exact:
            problem = f"holds {_tensors(unused)} that the model has no place for: {names}"
            raise UserError(place, problem, cure=cure)
        logger.warning("%s holds %s that nothing uses: %s", place, _tensors(unused), names)


def compare(
    place: object,
    wanted: Mapping[str, Shape],
    found: Mapping[str, Shape],
    *,
    optional: Callable[[str], bool] = lambda name: False,  # noqa: ARG005
    cure: str = CURE,
    exact: bool = False,
) -> None:
    """:func:`judge` the shapes of a file by those of a module; ``optional`` names may be missing.

    Raises:
        UserError: If they do not fit.
    """
    judge(
        place,
        missing=[name for name in wanted if name not in found and not optional(name)],
        further=[name for name in found if name not in wanted],
        other={
            name: (tuple(found[name]), tuple(shape))
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        },
        cure=cure,
        exact=exact,
    )


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shape of each tensor."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def refuse_not_finite(place: object, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse weights that hold NaN or infinity: every vector would.

    Raises:
        UserError: With the first tensor's name.
    """
    for name, value in weights:
        if not value.is_floating_point() or value.element_size() < 2 or value.numel() == 0:
            continue
        if value.is_meta or not torch.stack(value.detach().aminmax()).isfinite().all():
            problem = f"holds numbers that are not finite in {name}"
            raise UserError(place, problem, cure="Take weights from before training failed")


def read_header(path: Path) -> dict[str, Stored]:
    """Return what a safetensors file says of its tensors.

    Raises:
        UserError: If it is no whole safetensors file.
    """
    with reading(path), safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return {
            name: Stored(tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()
        }


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a transformer's weights: one, or those that an index names.

    Raises:
        UserError: If there are none, or the index names what is not in the folder.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise UserError(folder, f"has no {WEIGHTS}", cure="Save the model as safetensors")
    names = sorted(set(read_form(index, IndexFile).weight_map.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            cure = "Name files that lie beside it"
            raise UserError(
                index, "names a file that is no shard of this folder", got=name, cure=cure
            )
        if not (folder / name).is_file():
            cure = "Copy or download it as well"
            raise UserError(index, "names a shard that is not there", got=name, cure=cure)
    if not names:
        raise UserError(index, "names no shards", cure="Copy or download the folder again")
    return [folder / name for name in names]


def read_headers(folder: Path) -> dict[str, Stored]:
    """Return what the files of a transformer say of its tensors.

    Raises:
        UserError: If a file is missing or broken.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder):
        found |= read_header(path)
    return found


def _tensors(names: Sequence[str]) -> str:
    return "tensor" if len(names) == 1 else "tensors"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
