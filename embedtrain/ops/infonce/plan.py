"""How InfoNCE will be computed: the height of a tile, and whether two directions share one."""

from sys import maxsize

import torch

from embedtrain.ops.infonce.problem import InfoNCEProblem
from embedtrain.ops.products import tile_bytes

TILE_BYTES = 48 << 20
"""Budget of one tile and the few row buffers beside it on a CPU; a GPU's is
:func:`embedtrain.ops.products.tile_bytes`."""
FEWEST_ROWS = 128
"""Thinner tiles leave a GEMM short of work (measured at 4,096 x 4,096 x 768: 64 rows take 1.4 times
as long as 256)."""
MOST_ROWS = 1024
"""On a CPU thicker tiles cost memory and gain nothing (measured at 1,024 to 8,192 queries)."""
ROW_BUFFERS = 6
"""Buffers of tile rows x dim that live beside the tile: anchors, scaled anchors, steps, positives."""


def tile_rows(num_queries: int, columns: int, dim: int, itemsize: int, device: torch.device) -> int:
    """Return as many rows as the budget holds, evened out so that the last tile is not a sliver."""
    budget = tile_bytes(device, TILE_BYTES)
    most = maxsize if device.type == "cuda" else MOST_ROWS
    fitting = budget // (itemsize * (columns + ROW_BUFFERS * dim))
    num_tiles = -(-num_queries // min(max(fitting, FEWEST_ROWS), most))
    return -(-num_queries // max(num_tiles, 1))


def problem_rows(problem: InfoNCEProblem) -> int:
    """Return the rows of a tile that holds all directions, or the one that :func:`is_symmetric` shares."""
    options, (num_queries, dim) = problem.options, problem.query.shape
    sizes = {"document": len(problem.document), "query": len(problem.all_query)}
    widths = {name: sizes[name.rpartition("_")[2]] for name in options.directions}
    if options.negatives == "own":
        widths["query_to_document"] = sizes["document"] // num_queries
    columns = sizes["document"] if is_symmetric(problem) else sum(widths.values())
    itemsize, device = problem.dtype.itemsize, problem.query.device
    if problem.operands != problem.dtype and not is_symmetric(problem):
        itemsize += problem.operands.itemsize  # exponentials lie beside the scores
    return tile_rows(num_queries, columns, dim, itemsize, device)


def is_symmetric(problem: InfoNCEProblem) -> bool:
    """Whether query-to-document and its transpose, which are all there is, can share their tiles."""
    options = problem.options
    return (
        set(options.directions) == {"query_to_document", "document_to_query"}
        and problem.all_query is problem.query
        and options.negatives == "all"
        and not options.has_margin
        and options.hardness == 0.0
        and options.label_smoothing == 0.0
    )
