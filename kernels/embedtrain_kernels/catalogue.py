"""Every kernel in every form that a launch may ask for, so that all of them can be compiled beforehand.

Importing this module needs Triton. A new kernel is a new function here; ``scripts/check_kernels.py`` finds
the rest.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from embedtrain_kernels import maxsim, softmax
from embedtrain_kernels.availability import ARCHITECTURES
from embedtrain_kernels.configurations import (
    HALF,
    INFONCE_FORMS,
    MAXSIM_DIM,
    Tile,
    infonce_tile,
    maxsim_tile,
)
from embedtrain_kernels.infonce_forward import infonce_forward
from embedtrain_kernels.infonce_slopes import infonce_slopes
from embedtrain_kernels.maxsim_kernels import maxsim_backward, maxsim_forward
from embedtrain_kernels.softmax_kernels import exponentiate_rows

MATRIX_UNITS = {80: "mma", 90: "wgmma", 100: "tcgen05"}
"""The tensor-core instructions that each architecture was built for."""

DTYPES = (*HALF, "fp32")
EMBEDDINGS = {"query", "document", "anchor", "candidate", "slopes", "source", "exponentials"}
INT64 = {"order", "pointers", "text_of_row"}
INT32 = {
    *("bounds", "labels", "relevant", "candidate_keys", "anchor_keys", "answers", "row_suspected"),
    *("row_number", "winners", "pair_query", "pair_document", "query_starts", "document_starts"),
}
UNALIGNED = {"longest", "row_stride", "exponentials_stride"}
"""Whole numbers that a kernel must not be specialised for; ``num_*`` are others."""
ALIGNED = ("_stride", "_end")
"""How the names of whole numbers end that are multiples of 16."""


@dataclass(frozen=True)
class Entry:
    """One kernel with everything that is fixed at compile time."""

    kernel: Any
    architecture: int
    dtype: str
    constants: dict[str, Any]
    launch: dict[str, int]
    label: str
    """What tells it from the other entries of its kernel."""
    instruction: str | None = None
    """The tensor-core instruction it must contain."""
    reduced: bool = False
    """Whether the test suite compiles it, too."""

    @property
    def name(self) -> str:
        """Return a name that no other entry has."""
        place = f"sm_{self.architecture} {self.dtype}"
        return f"{self.kernel.fn.__name__} {place} {self.label}".strip()

    def signature(self) -> dict[str, str]:
        """Return the type of every parameter, in order."""
        return {name: self._type(name) for name in inspect.signature(self.kernel.fn).parameters}

    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        """Say which parameters are multiples of 16, as the launches make sure they are."""
        aligned = {}
        for place, (name, kind) in enumerate(self.signature().items()):
            if kind.startswith("*") or (name.endswith(ALIGNED) and name not in UNALIGNED):
                aligned[(place,)] = [["tt.divisibility", 16]]
        return aligned

    def _type(self, name: str) -> str:
        if name in self.constants:
            return "constexpr"
        if name in UNALIGNED or name.startswith("num_") or name.endswith(ALIGNED):
            return "i32"
        own_type = name in EMBEDDINGS or (name == "out" and self.kernel is maxsim_backward)
        if own_type:
            return f"*{self.dtype}"
        return "*i64" if name in INT64 else "*i32" if name in INT32 else "*fp32"


def entries() -> Iterator[Entry]:
    """Yield all entries of all kernels."""
    for architecture, dtype in product(ARCHITECTURES, DTYPES):
        yield from _infonce(architecture, dtype)
        yield from _maxsim(architecture, dtype)
    for architecture, dtype in product(ARCHITECTURES, ("fp32", "bf16")):
        yield Entry(
            exponentiate_rows,
            architecture,
            dtype,
            # Exponentials of 16 bits belong to scores that are not divided by the temperature yet.
            {"has_scale": dtype == "bf16", "block_columns": softmax.BLOCK},
            {"num_warps": 8, "maxnreg": 255},
            "",
            reduced=architecture == 90,
        )


def _infonce(architecture: int, dtype: str) -> Iterator[Entry]:
    forms = product((infonce_forward, infonce_slopes), INFONCE_FORMS.items())
    for kernel, (form, values) in forms:
        tile = infonce_tile(architecture, dtype, form)
        if tile is None:
            continue
        constants = dict(zip(("guarded", "has_columns", "nested"), values, strict=True))
        yield _tiled(
            kernel,
            architecture,
            dtype,
            tile,
            {**constants, "block_depth": tile.depth},
            form,
            reduced=dtype == "bf16" and (architecture, form) in {(80, "guarded"), (90, "columns")},
        )


def _maxsim(architecture: int, dtype: str) -> Iterator[Entry]:
    for dim, save_winners in product((64, 128, MAXSIM_DIM[True]), (False, True)):
        tile = maxsim_tile(architecture, dtype, dim)
        if tile is None:
            continue
        padded = maxsim.padded(dim)
        constants = {"dim": dim, "padded_dim": padded, "save_winners": save_winners}
        picked = dtype == "bf16" and dim == 128 and architecture == 90
        label = f"d={dim} winners={'yes' if save_winners else 'no'}"
        yield _tiled(
            maxsim_forward,
            architecture,
            dtype,
            tile,
            constants,
            label,
            reduced=picked and save_winners,
        )
        # Whose tokens are owned takes the place of what is saved.
        constants = {"dim": dim, "padded_dim": padded, "own_queries": save_winners}
        yield Entry(
            maxsim_backward,
            architecture,
            dtype,
            {**constants, "block_rows": maxsim.ENTRIES},
            {"num_warps": 4, "maxnreg": 255},
            f"d={dim} own={'queries' if save_winners else 'documents'}",
            reduced=picked and save_winners,
        )


def _tiled(
    kernel: Any,  # noqa: ANN401 - a compiled function of Triton, which has no public type
    architecture: int,
    dtype: str,
    tile: Tile,
    constants: dict[str, Any],
    label: str,
    *,
    reduced: bool,
) -> Entry:
    """Make the entry of a kernel that multiplies matrices."""
    # The instructions of Hopper and Blackwell take 64 rows at least.
    instruction = MATRIX_UNITS[architecture] if tile.rows >= 64 else "mma"
    return Entry(
        kernel,
        architecture,
        dtype,
        {**constants, **tile.constants()},
        tile.launch(),
        f"{label} tile={tile.rows}x{tile.columns}",
        instruction,
        reduced,
    )
