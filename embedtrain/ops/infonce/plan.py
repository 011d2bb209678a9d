"""How InfoNCE will be computed: scheme, tile, number of GEMMs and bytes, all before anything runs."""

from dataclasses import dataclass
from typing import Literal

from embedtrain.ops.infonce.problem import InfoNCEProblem

TILE_BYTES = 48 << 20
"""Budget of one tile and the few row buffers beside it."""
FEWEST_ROWS = 128
"""Thinner tiles leave a GEMM short of work (measured at 4,096 x 4,096 x 768: 64 rows take 1.4 times
as long as 256)."""
MOST_ROWS = 1024
"""Thicker tiles cost memory and gain nothing (measured at 1,024 to 8,192 queries)."""
ROW_BUFFERS = 6
"""Buffers of tile rows x dim that live beside the tile: anchors, scaled anchors, steps, positives."""

DENSE_COPIES = 3
"""Score matrices that the reference holds at once: similarities, logits and a derivative."""

Scheme = Literal["dense", "rows", "symmetric"]


@dataclass(frozen=True)
class Plan:
    """What a call will do; analytic, not measured."""

    backend: Literal["reference", "chunked", "fused"]
    scheme: Scheme
    """``dense``: the whole matrix; ``rows``: one visit per tile; ``symmetric``: two visits, both
    directions from the same tile."""
    tile_rows: int
    tile_columns: int
    num_gemms: int
    """GEMMs of the size queries x candidates x dim for loss and all gradients."""
    tile_bytes: int
    extra_bytes: int
    """Memory beyond inputs and gradients."""
    reason: str
    """Why this scheme, in a few words."""


def plan_problem(problem: InfoNCEProblem, *, dense: bool = False) -> Plan:
    """Plan the ``chunked`` backend for checked inputs, or the reference with ``dense``."""
    options, (num_queries, dim) = problem.options, problem.query.shape
    sizes = {"document": len(problem.document), "query": len(problem.all_query)}
    widths = [sizes[direction.rpartition("_")[2]] for direction in options.directions]
    own = options.negatives == "own"
    if own:
        widths[options.directions.index("query_to_document")] = sizes["document"] // num_queries
    obstacle = _symmetry_obstacle(problem)
    symmetric = obstacle == "" and not dense
    columns = sizes["document"] if symmetric else sum(widths)
    itemsize = problem.dtype.itemsize
    rows = num_queries if dense else tile_rows(num_queries, columns, dim, itemsize)
    tile = rows * columns * itemsize
    extra = (DENSE_COPIES if dense else 1) * tile + 8 * (16 * num_queries + 4 * sizes["document"])
    if not dense:
        extra += ROW_BUFFERS * rows * dim * itemsize
    if problem.document.dtype.itemsize < itemsize:  # documents and both gradients in float32
        extra += (2 * sizes["document"] + num_queries) * dim * itemsize
    return Plan(
        backend="reference" if dense else "chunked",
        scheme="dense" if dense else "symmetric" if symmetric else "rows",
        tile_rows=rows,
        tile_columns=columns,
        num_gemms=4 if symmetric else 3 * (len(widths) - (own and not dense)),
        tile_bytes=tile,
        extra_bytes=extra,
        reason="the definition" if dense else obstacle or "both directions share each tile",
    )


def tile_rows(num_queries: int, columns: int, dim: int, itemsize: int) -> int:
    """Return as many rows as the budget holds, evened out so that the last tile is not a sliver."""
    fitting = TILE_BYTES // (itemsize * (columns + ROW_BUFFERS * dim))
    num_tiles = -(-num_queries // min(max(fitting, FEWEST_ROWS), MOST_ROWS))
    return -(-num_queries // max(num_tiles, 1))


def _symmetry_obstacle(problem: InfoNCEProblem) -> str:
    """Say what forbids the shared tile of query-to-document and its transpose; empty if nothing."""
    options = problem.options
    if set(options.directions) != {"query_to_document", "document_to_query"}:
        return "each direction has its own tile"
    obstacles = {
        "gathered queries": problem.all_query is not problem.query,
        "a temperature per query": not problem.one_temperature,
        "own negatives kept apart": options.negatives != "all",
        "a false-negative margin": options.has_margin,
        "hardness": options.hardness != 0.0,
        "label smoothing": options.label_smoothing != 0.0,
    }
    found = [name for name, present in obstacles.items() if present]
    return f"{found[0]} needs one tile per direction" if found else ""
