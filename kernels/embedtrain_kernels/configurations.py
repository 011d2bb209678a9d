"""How each kernel is cut and launched on each architecture: a static table, checked at compile time.

No kernel is tuned at run time: a table gives the same tiles, hence the same bits, on every run, and every
row of it is compiled and inspected by ``scripts/check_kernels.py``. The tiles are the largest that the
compiler places without register spills; none was timed, so none is claimed to be the fastest.
"""

from dataclasses import dataclass

HALF = ("bf16", "fp16")

REGISTERS = 65_536
"""Registers of a multiprocessor, on every architecture served."""

SMALLEST_DIM = 16
"""The matrix units multiply at least 16 elements deep; smaller dims are filled with zeros."""


@dataclass(frozen=True)
class Tile:
    """The size of a block of scores and what the compiler may use for it."""

    rows: int
    columns: int
    depth: int
    """Elements of ``dim`` taken at once where the whole of it does not stay on chip."""
    num_warps: int
    num_stages: int
    precision: str = "ieee"
    """``tf32x3`` makes float32 products of three TF32 ones, nearly exact, on the matrix units."""

    def constants(self) -> dict[str, int | str]:
        """Return what is compiled into a kernel."""
        return {
            "block_rows": self.rows,
            "block_columns": self.columns,
            "precision": self.precision,
        }

    def launch(self) -> dict[str, int]:
        """Return Triton's launch options.

        Without ``maxnreg`` ptxas 12.9 and 13 stop at 128 registers for some variants and spill a few, to fit
        a second block that shared memory forbids anyway.
        """
        most = min(255, REGISTERS // (32 * self.num_warps))
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "maxnreg": most}


INFONCE: dict[tuple[int, bool], Tile] = {
    (80, True): Tile(128, 128, 32, 8, 3),
    (90, True): Tile(128, 128, 64, 8, 3),
    (100, True): Tile(128, 128, 64, 8, 3),
    (80, False): Tile(128, 64, 32, 8, 3, "tf32x3"),
    (90, False): Tile(128, 64, 32, 8, 3, "tf32x3"),
    (100, False): Tile(128, 64, 32, 8, 3, "tf32x3"),
}
"""Keyed by architecture and by whether the embeddings are bfloat16 or float16; rows are anchors. Larger
tiles would read less from the L2 cache; where they spill no registers they stand below."""

INFONCE_EXCEPTIONS: dict[tuple[int, bool, str], Tile] = {
    (80, True, "nested"): Tile(128, 64, 32, 8, 3),
    (90, True, "plain"): Tile(256, 128, 64, 8, 3),
    (90, True, "nested"): Tile(128, 64, 64, 8, 3),
    (100, True, "nested"): Tile(64, 64, 64, 8, 3),
    (100, True, "columns"): Tile(128, 64, 64, 8, 3),
    (80, False, "nested"): Tile(64, 32, 32, 4, 3, "tf32x3"),
    (90, False, "nested"): Tile(64, 64, 32, 8, 3, "tf32x3"),
    (100, False, "nested"): Tile(64, 64, 32, 8, 3, "tf32x3"),
}
"""Forms that need or bear another tile: ``nested`` holds products and scores of a tile side by side, Triton 3.9
spills 120 bytes for the columns of 128 x 128 on sm_100, and ``plain`` has room for 256 x 128 on sm_90 (128 x 256
spills 80 bytes there, 256 x 128 with guards 64)."""

INFONCE_FORMS = {
    "plain": (False, False, False),
    "columns": (False, True, False),
    "guarded": (True, False, False),
    "nested": (False, False, True),
}
"""The forms that are compiled: guarded, has_columns, nested. No form depends on the size of an embedding or
on the number of positives and relevant ids."""

MAXSIM: dict[tuple[int, bool], Tile] = {
    (80, True): Tile(128, 32, 0, 4, 2),
    (90, True): Tile(128, 32, 0, 4, 2),
    (100, True): Tile(128, 32, 0, 8, 2),
    (80, False): Tile(32, 16, 0, 4, 2, "tf32x3"),
    (90, False): Tile(32, 16, 0, 4, 2, "tf32x3"),
    (100, False): Tile(32, 16, 0, 4, 2, "tf32x3"),
}
"""Keyed as above; rows are document tokens, columns query tokens."""

MAXSIM_DIM = {True: 256, False: 128}
"""Largest size of a token's embedding in 16 bits and in float32, which spills registers beyond."""


def maxsim_tile(architecture: int, dtype: str, dim: int) -> Tile | None:
    """Return the tile, or ``None`` where it would not fit; arguments as in :func:`infonce_tile`."""
    half = dtype in HALF
    return MAXSIM.get((architecture, half)) if dim <= MAXSIM_DIM[half] else None


def infonce_form(*, guarded: bool = False, has_columns: bool = False, nested: bool = False) -> str:
    """Return the name of the form that is compiled with these constants."""
    wanted = (guarded, has_columns, nested)
    return next(form for form, constants in INFONCE_FORMS.items() if constants == wanted)


def infonce_tile(architecture: int, dtype: str, form: str = "plain") -> Tile | None:
    """Return the tile of both InfoNCE kernels, or ``None`` where none was checked.

    Args:
        architecture: Compute capability times ten.
        dtype: ``bf16``, ``fp16`` or ``fp32``.
        form: One of :data:`INFONCE_FORMS`.
    """
    half = dtype in HALF
    return INFONCE_EXCEPTIONS.get((architecture, half, form), INFONCE.get((architecture, half)))
