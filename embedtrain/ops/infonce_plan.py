"""How InfoNCE will be computed: scheme, tile, number of GEMMs and bytes, all before anything runs."""

from dataclasses import dataclass
from typing import Literal

import torch

from embedtrain.ops.infonce_problem import InfoNCEOptions, InfoNCEProblem

TILE_BYTES = 64 << 20
"""Budget of one tile and the few row buffers beside it."""
FEWEST_ROWS = 128
"""Thinner tiles leave a GEMM short of work (measured: 64 rows cost 1.5 times the time of 256)."""
ROW_BUFFERS = 6
"""Buffers of tile rows x dim that live beside the tile: anchors, scaled anchors, steps, positives."""

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


def plan(
    num_queries: int,
    num_documents: int,
    dim: int,
    *,
    num_all_queries: int | None = None,
    options: InfoNCEOptions,
    dtype: torch.dtype,
    one_temperature: bool = True,
    dense: bool = False,
) -> Plan:
    """Plan the ``chunked`` backend (or the reference, with ``dense``)."""
    candidates = num_all_queries or num_queries
    widths = [
        candidates if direction in {"document_to_query", "query_to_query"} else num_documents
        for direction in options.directions
    ]
    own = options.negatives == "own"
    if own:
        widths[options.directions.index("query_to_document")] = -(-num_documents // num_queries)
    obstacle = _symmetry_obstacle(options, num_all_queries is not None, one_temperature)
    symmetric = not dense and obstacle == ""
    columns = num_documents if symmetric else sum(widths)
    itemsize = 8 if dtype == torch.float64 else 4
    rows = num_queries if dense else _tile_rows(num_queries, columns, dim, itemsize)
    tile = rows * columns * itemsize
    converted = (num_documents + num_queries) * dim * 4 * 2 if dtype.itemsize < 4 else 0
    per_row = 16 * 8 * num_queries + 4 * 8 * num_documents
    return Plan(
        backend="reference" if dense else "chunked",
        scheme="dense" if dense else "symmetric" if symmetric else "rows",
        tile_rows=rows,
        tile_columns=columns,
        num_gemms=4 if symmetric else 3 * (len(widths) - own),
        tile_bytes=tile,
        extra_bytes=(3 if dense else 1) * tile
        + (0 if dense else ROW_BUFFERS * rows * dim * itemsize)
        + per_row
        + converted,
        reason="the definition" if dense else obstacle or "both directions share each tile",
    )


def plan_problem(problem: InfoNCEProblem) -> Plan:
    """Plan the chunked computation of checked inputs."""
    shared = problem.all_query is problem.query
    return plan(
        *(len(problem.query), *problem.document.shape),
        num_all_queries=None if shared else len(problem.all_query),
        options=problem.options,
        dtype=problem.query.dtype if problem.dtype == torch.float32 else problem.dtype,
        one_temperature=problem.one_temperature,
    )


def _tile_rows(num_queries: int, columns: int, dim: int, itemsize: int) -> int:
    """Return as many rows as the budget holds, evened out so that the last tile is not a sliver."""
    fitting = TILE_BYTES // (itemsize * (columns + ROW_BUFFERS * dim))
    num_tiles = -(-num_queries // max(fitting, FEWEST_ROWS))
    return -(-num_queries // max(num_tiles, 1))


def _symmetry_obstacle(options: InfoNCEOptions, gathered: bool, one_temperature: bool) -> str:
    """Say what forbids the shared tile of query-to-document and its transpose; empty if nothing."""
    if set(options.directions) != {"query_to_document", "document_to_query"}:
        return "each direction has its own tile"
    obstacles = {
        "gathered queries": gathered,
        "a temperature per query": not one_temperature,
        "own negatives": options.negatives == "own",
        "a false-negative margin": options.false_negative_margin is not None,
        "hardness": options.hardness != 0.0,
        "label smoothing": options.label_smoothing != 0.0,
    }
    found = [name for name, present in obstacles.items() if present]
    return f"{found[0]} needs one tile per direction" if found else ""
