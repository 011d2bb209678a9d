"""InfoNCE in Triton kernels: no matrix of scores; importing this module needs Triton.

One pass forward sums the exponentials of all negatives, and :mod:`embedtrain.ops.infonce.rows` turns the
sums into losses and slopes. A second pass computes the scores again and writes their slopes, in the type of the
embeddings, into a bounded buffer, of which library GEMMs make gradients: 4 GEMMs for a direction or for both
between queries and documents, no atomics in a kernel, the same bits on every run.
"""

import torch
from embedtrain_kernels.availability import architecture, interpreting
from embedtrain_kernels.configurations import Tile, infonce_form, infonce_tile
from embedtrain_kernels.infonce import LOG2_E, gradients, negative_sums
from embedtrain_kernels.infonce_arguments import Candidates, NegativeSums, Slopes
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import KERNEL_DTYPES
from embedtrain.ops.infonce.autograd import Wanted, empty_gradients, with_gradients
from embedtrain.ops.infonce.blocks import Gradients, listed_similarity
from embedtrain.ops.infonce.fused_directions import (
    Direction,
    eligible_counts,
    fused_directions,
    known_counts,
)
from embedtrain.ops.infonce.problem import InfoNCEOutput, InfoNCEProblem
from embedtrain.ops.infonce.rows import RowFigures, RowSums, summarise, weigh_rows
from embedtrain.ops.products import HALF, add_product, multiplies_half

MOST_LISTED = 64
"""Positives or relevant ids of one query: each is compared with every score of a tile."""


def infonce_fused(problem: InfoNCEProblem) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce` in kernels, or say why not."""
    if obstacle := unsupported(problem):
        raise UserError(
            "infonce(backend='fused')",
            "cannot compute this",
            got=obstacle,
            cure="Use backend='chunked' or 'auto'",
        )
    return with_gradients(problem, _loss_and_gradients)


def unsupported(problem: InfoNCEProblem) -> str:
    """Say what the kernels lack for this problem; empty if nothing. Reads shapes, never a tensor."""
    (queries, dim), device = problem.query.shape, problem.query.device
    lists = (problem.positives, problem.relevant_ids, problem.all_relevant_ids)
    listed = max(0 if ids is None else ids.shape[1] for ids in lists)
    types = {str(x.dtype) for x in (problem.query, problem.document, problem.all_query)}
    half = device.type == "cuda" and problem.query.dtype in HALF
    obstacles = {
        f"device {device}": device.type != "cuda" and not interpreting(),
        "an architecture without checked tiles": architecture(device) is None,
        f"types {' and '.join(sorted(types))}": _dtype(problem) is None,
        f"16 bits under torch {torch.__version__}, before 2.10": half
        and not multiplies_half(device),
        f"dim {dim}, which is no multiple of 16": dim % 16 != 0 or dim == 0,
        "no query or no document": 0 in (queries, len(problem.document)),
        f"{listed} positives or relevant ids of a query, above {MOST_LISTED}": listed > MOST_LISTED,
        "own negatives, which are so few that a list of products is less work": (
            problem.options.negatives == "own"
        ),
    }
    return next((name for name, present in obstacles.items() if present), "")


def _dtype(problem: InfoNCEProblem) -> str | None:
    types = {x.dtype for x in (problem.query, problem.document, problem.all_query)}
    return KERNEL_DTYPES.get(problem.query.dtype) if len(types) == 1 else None


def kernel_tile(
    problem: InfoNCEProblem, candidates: Candidates, *, columns: bool = False, nested: bool = False
) -> Tile:
    """Return the tile of a problem that is supported, for the form that its candidates need."""
    found, dtype = architecture(problem.query.device), _dtype(problem)
    assert found is not None
    assert dtype is not None
    form = infonce_form(guarded=candidates.guarded, has_columns=columns, nested=nested)
    tile = infonce_tile(found, dtype, form)
    assert tile is not None
    return tile


def _loss_and_gradients(
    problem: InfoNCEProblem, wanted: Wanted
) -> tuple[InfoNCEOutput, Gradients | None]:
    """Compute the output and the gradients of its loss; ``None`` where none is wanted."""
    similarity = listed_similarity(problem.query.float(), problem.document, problem.positives)
    best = similarity.masked_fill(~problem.positive_is_used, -torch.inf).amax(1)
    directions = fused_directions(problem, best)
    tiles = [kernel_tile(problem, each.candidates, columns=each.columns) for each in directions]
    sums = [
        negative_sums(each.scores, each.candidates, tile, columns=each.columns)
        for each, tile in zip(directions, tiles, strict=True)
    ]
    rows, counts = _row_sums(problem, sums, similarity)
    found, options = empty_gradients(problem, wanted), problem.options
    used, share = problem.positive_is_used, problem.share
    loss, slopes = weigh_rows(rows, counts, used, share, options, wanted=found is not None)
    if found is not None and slopes is not None:
        for k, (direction, some) in enumerate(zip(directions, sums, strict=True)):
            along = _slopes(problem, direction, some, slopes, k)
            _add_gradients(problem, direction, along, tiles[k], found)
        if found.temperature is not None:  # it divides the margin too, which is in no product
            shift = options.positive_margin * slopes.positives.sum(1)
            found.temperature.add_(shift / problem.temperature)
    figures = _figures(problem, sums[0], best)
    return summarise(loss, figures), found


def _row_sums(
    problem: InfoNCEProblem,
    sums: list[NegativeSums],
    similarity: Float[Tensor, "queries positives"],
) -> tuple[RowSums, Float[Tensor, "queries directions"]]:
    """Return what the losses depend on, and the number of negatives where smoothing asks for it."""
    negatives = [some.row_logsumexp[0] for some in sums]
    if sums[0].column_logsumexp is not None:
        negatives.append(sums[0].column_logsumexp[problem.positives[:, 0]])
    found = torch.stack(negatives, 1) / LOG2_E
    logits = counts = torch.zeros_like(found)
    if problem.options.label_smoothing > 0.0:
        logits = torch.stack([_present(some.logits)[0] for some in sums], 1) / LOG2_E
        counts = torch.stack([_present(some.number)[0] for some in sums], 1).to(found.dtype)
    return RowSums(found, similarity, problem.temperature, logits), counts


def _slopes(
    problem: InfoNCEProblem, direction: Direction, sums: NegativeSums, slopes: RowSums, k: int
) -> Slopes:
    """Lay out the loss's derivatives for one direction; only the first has positives."""
    label = torch.zeros_like(direction.candidates.labels, dtype=torch.float32)
    if k == 0:
        label = slopes.positives * problem.temperature[:, None]
    smoothed = problem.options.label_smoothing > 0.0
    found = Slopes(
        row_logsumexp=never_smallest(sums.row_logsumexp),
        row=slopes.negatives[:, k].contiguous()[None],
        label=label[None],
        constant=slopes.logits[:, k].contiguous() if smoothed else None,
    )
    if sums.column_logsumexp is None:
        return found
    column = add_at(
        torch.zeros_like(sums.column_logsumexp), problem.positives[:, 0], slopes.negatives[:, 1]
    )
    log_sum = never_smallest(sums.column_logsumexp)
    return Slopes(found.row_logsumexp, found.row, found.label, None, log_sum, column)


def _add_gradients(
    problem: InfoNCEProblem, direction: Direction, slopes: Slopes, tile: Tile, found: Gradients
) -> None:
    """Add what one direction gives to the embeddings and the temperature."""
    by_query = direction.side == "query"
    by_anchor = found.query if by_query else found.document
    by_candidate = found.document if direction.target == "document" else found.all_query
    step = gradients(
        direction.scores,
        slopes,
        direction.candidates,
        tile,
        add_product,
        anchor=by_anchor is not None or found.temperature is not None,
        candidate=by_candidate is not None,
    )
    if by_anchor is not None and by_query:
        by_anchor += _present(step.anchor)
    elif by_anchor is not None:
        add_at(by_anchor, problem.positives[:, 0], _present(step.anchor))
    if by_candidate is not None:
        by_candidate += _present(step.candidate)
    if found.temperature is not None:
        # Logits depend on similarity / temperature, so the slopes along both are in proportion.
        anchor = direction.scores.anchor.to(problem.dtype)
        found.temperature.sub_((anchor * _present(step.anchor)).sum(1) / problem.temperature)


def add_at(
    target: Float[Tensor, "..."], index: Int64[Tensor, " entries"], values: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Add rows at places that may repeat, in a fixed order: ``index_add_`` is atomic on CUDA, this sorts."""
    return target.index_put_((index,), values, accumulate=True)


def never_smallest(log_sum: Tensor) -> Tensor:
    """Replace the log of an empty sum, so that ``exp(-inf - log_sum)`` is 0 and not NaN."""
    return log_sum.masked_fill(log_sum == -torch.inf, torch.inf)


def _figures(
    problem: InfoNCEProblem, sums: NegativeSums, best: Float[Tensor, " queries"]
) -> RowFigures:
    eligible, hardest = eligible_counts(problem), sums.row_maximum[0] / LOG2_E
    if sums.num_suspected is None or sums.number is None:
        known = known_counts(problem)
        suspected = torch.zeros_like(known)
    else:
        suspected = sums.num_suspected[0].long()
        known = eligible - suspected - sums.number[0]
    return RowFigures(best, hardest * problem.temperature, eligible, known, suspected)


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
