"""How each kernel is cut and launched on each architecture: a static table, checked at compile time.

No kernel is tuned at run time: a table gives the same tiles, hence the same bits, on every run, and every
row of it is compiled and inspected by ``scripts/check_kernels.py``. The tiles are the largest that the
compiler places without register spills; none was timed, so none is claimed to be the fastest.
"""

from dataclasses import dataclass

HALF = ("bf16", "fp16")

MASKS = {"none": (1, 0, False), "ids": (1, 2, False), "all": (2, 4, True)}
"""The forms of masks that are compiled: labels, relevant ids, ceiling. A problem is filled up to one."""

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
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "maxnreg": 255}


INFONCE_FORWARD: dict[tuple[int, bool], Tile] = {
    (80, True): Tile(128, 64, 32, 8, 3),
    (90, True): Tile(128, 128, 32, 8, 3),
    (100, True): Tile(128, 64, 64, 8, 3),
    (80, False): Tile(64, 64, 32, 8, 3, "tf32x3"),
    (90, False): Tile(64, 64, 32, 8, 3, "tf32x3"),
    (100, False): Tile(64, 64, 32, 8, 3, "tf32x3"),
}
"""Keyed by architecture and by whether the embeddings are bfloat16 or float16."""

INFONCE_BACKWARD: dict[tuple[int, bool], dict[int, Tile]] = {
    (80, True): {256: Tile(64, 64, 0, 8, 2), 512: Tile(32, 64, 0, 8, 2)},
    (90, True): {
        128: Tile(128, 64, 0, 8, 2),
        256: Tile(64, 64, 0, 8, 2),
        384: Tile(64, 32, 0, 8, 2),
        512: Tile(64, 16, 0, 8, 2),
    },
    (100, True): {256: Tile(64, 64, 0, 8, 2), 512: Tile(64, 32, 0, 8, 2)},
    (80, False): {128: Tile(32, 32, 0, 8, 2, "tf32x3")},
    (90, False): {128: Tile(16, 32, 0, 4, 2, "tf32x3")},
    (100, False): {128: Tile(16, 32, 0, 4, 2, "tf32x3")},
}
"""As above, then by the largest dim that the tile serves."""

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
    """Return the tile, or ``None`` where it would not fit; arguments as in :func:`infonce_tiles`."""
    half = dtype in HALF
    return MAXSIM.get((architecture, half)) if dim <= MAXSIM_DIM[half] else None


def masks_for(num_labels: int, num_relevant: int, *, ceiling: bool) -> str | None:
    """Return the smallest form of :data:`MASKS` that holds so much, or ``None``."""
    wanted = (num_labels, num_relevant, ceiling)
    fits = (
        name
        for name, form in MASKS.items()
        if all(a <= b for a, b in zip(wanted, form, strict=True))
    )
    return next(fits, None)


def infonce_tiles(architecture: int, dtype: str, dim: int) -> tuple[Tile, Tile] | None:
    """Return the tiles of forward and backward pass, or ``None`` where they would not fit.

    Args:
        architecture: Compute capability times ten.
        dtype: ``bf16``, ``fp16`` or ``fp32``.
        dim: Size of an embedding.
    """
    half = dtype in HALF
    forward = INFONCE_FORWARD.get((architecture, half))
    backward = INFONCE_BACKWARD.get((architecture, half), {})
    limits = [limit for limit in sorted(backward) if dim <= limit]
    return None if forward is None or not limits else (forward, backward[limits[0]])


def split_dim(dim: int) -> tuple[int, int]:
    """Cover ``dim`` with one or two powers of two, the larger first: 384 is ``(256, 128)``.

    Where two do not suffice the cover is larger than ``dim`` (448 is ``(512, 0)``) and the rest is masked.
    """
    powers = [SMALLEST_DIM << exponent for exponent in range(dim.bit_length())]
    covers = [(low, high) for low in powers for high in (0, *powers) if high < low]
    return min((cover for cover in covers if sum(cover) >= dim), key=sum)
