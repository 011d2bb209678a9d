"""The InfoNCE kernels against dense float64, over ragged shapes, masks and types."""

import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels.configurations import Tile
from embedtrain_kernels.infonce import (
    LOG2_E,
    Candidates,
    Slopes,
    gradients,
    logarithm,
    merge,
    negative_sums,
    split,
)

TILE = Tile(rows=32, columns=32, depth=32, num_warps=4, num_stages=1)
RELATIVE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 8e-3}


class Case:
    """Random embeddings, masks and slopes, and what float64 makes of them."""

    def __init__(
        self, guard, device, queries, documents, dim, *, labels=1, relevant=0, dtype, gap=0
    ):
        generator = torch.Generator().manual_seed(queries * documents + dim)
        shapes = {"query": (queries, dim), "document": (documents, dim)}
        for name, shape in shapes.items():
            values = torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=1)
            setattr(self, name, guard.around(values.to(device, dtype), gap))
        self.scale = guard.around(5 + 30 * torch.rand(queries, generator=generator).to(device))
        places = torch.rand(queries, documents, generator=generator).argsort(1)[:, :labels]
        listed = places.int().to(device)
        listed[::3, 1:] = -1
        ids = torch.randint(0, documents // 3 + 1, (documents,), generator=generator)
        answered = torch.randint(-1, documents // 3 + 1, (queries, relevant), generator=generator)
        self.candidates = Candidates(
            labels=guard.around(listed),
            relevant=guard.around(answered.int().to(device)) if relevant else None,
            document_ids=guard.around(ids.int().to(device)) if relevant else None,
        )

    @property
    def similarity(self):
        return self.query.double() @ self.document.double().T

    def negatives(self):
        """Which scores are those of negatives."""
        columns = torch.arange(len(self.document), device=self.query.device)
        kept = ~(self.candidates.labels[:, :, None] == columns).any(1)
        if self.candidates.relevant is not None:
            kept &= ~(self.candidates.relevant[:, :, None] == self.candidates.document_ids).any(1)
        if self.candidates.ceiling is not None:
            kept &= self.similarity <= self.candidates.ceiling[:, None].double()
        return kept

    def scores(self):
        scores = self.similarity * self.scale.double()[:, None]
        return scores.masked_fill(~self.negatives(), -torch.inf)


def with_ceiling(case, guard):
    """The same case, its most similar candidates left out; the ceiling lies between two scores."""
    ordered = case.similarity.sort(1).values
    middle = len(case.document) * 3 // 4
    ceiling = (ordered[:, middle] + ordered[:, middle - 1]) / 2
    listed = case.candidates
    case.candidates = Candidates(
        listed.labels, listed.relevant, listed.document_ids, guard.around(ceiling.float())
    )
    return case


def assert_close(value, truth, dtype):
    assert value.isfinite().all()
    assert (value - truth).abs().max() <= RELATIVE[dtype] * truth.abs().max()


def assert_sums(case, *, columns):
    dtype = case.query.dtype
    sums = negative_sums(
        case.query, case.document, case.scale * LOG2_E, case.candidates, TILE, columns=columns
    )
    scores = case.scores()
    exact = (
        dtype if dtype == torch.float32 else torch.float32
    )  # products of 16-bit values are exact
    for found, truth in [
        (sums.row_maximum, scores.amax(1)),
        (sums.row_logsumexp, scores.logsumexp(1)),
        (sums.column_logsumexp, scores.logsumexp(0)),
    ]:
        if found is None:
            assert not columns
            continue
        empty = truth == -torch.inf
        assert torch.equal(found == -torch.inf, empty)
        if not empty.all():
            assert_close(found[~empty] / LOG2_E, truth[~empty], exact)
    if case.candidates.ceiling is not None:
        without = Candidates(
            case.candidates.labels, case.candidates.relevant, case.candidates.document_ids
        )
        number = case.negatives().sum(1)
        case.candidates = without
        assert torch.equal(sums.num_suspected.long(), case.negatives().sum(1) - number)


def assert_gradients(case, guard, *, columns):
    queries, documents = case.negatives().shape
    scores, dtype, device = case.scores(), case.query.dtype, case.query.device
    generator = torch.Generator().manual_seed(7)
    row = torch.rand(queries, generator=generator).to(device)
    column = torch.rand(documents, generator=generator).to(device) if columns else None
    label = -torch.rand(case.candidates.labels.shape, generator=generator).to(device)
    slope = scores.softmax(1).nan_to_num(0.0) * row.double()[:, None]
    if columns:
        slope += scores.softmax(0).nan_to_num(0.0) * column.double()
    for place, listed in enumerate(case.candidates.labels.T.long()):
        used = listed >= 0
        slope[used.nonzero()[:, 0], listed[used]] = label[used, place].double()
    slope = slope * case.scale.double()[:, None] * 0.37
    slopes = Slopes(
        row_logsumexp=guard.around(finite(scores.logsumexp(1) * LOG2_E)),
        row=guard.around(row),
        label=guard.around(label),
        column_logsumexp=guard.around(finite(scores.logsumexp(0) * LOG2_E)) if columns else None,
        column=guard.around(column) if columns else None,
    )
    unit = torch.tensor(0.37, device=device)
    for own_queries, truth in [
        (True, slope @ case.document.double()),
        (False, slope.T @ case.query.double()),
    ]:
        found = gradients(
            case.query,
            case.document,
            case.scale,
            unit,
            slopes,
            case.candidates,
            TILE,
            own_queries=own_queries,
        )
        assert_close(found, truth, dtype)


def finite(log_sum):
    return log_sum.masked_fill(log_sum == -torch.inf, torch.inf).float()


SHAPES = [(1, 1, 16), (5, 70, 24), (33, 17, 96), (40, 41, 100), (50, 64, 48)]


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize(("queries", "documents", "dim"), SHAPES)
def test_ragged_shapes_agree_with_float64(device, guard, queries, documents, dim, columns):
    case = Case(guard, device, queries, documents, dim, dtype=torch.float32)
    assert_sums(case, columns=columns)
    assert_gradients(case, guard, columns=columns)


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize(("labels", "relevant"), [(2, 0), (1, 1), (2, 4)])
def test_listed_documents_are_no_negatives(device, guard, labels, relevant, columns):
    case = Case(guard, device, 37, 50, 32, labels=labels, relevant=relevant, dtype=torch.float32)
    assert_sums(case, columns=columns)
    assert_gradients(case, guard, columns=columns)


@pytest.mark.parametrize("relevant", [0, 2])
def test_candidates_above_the_ceiling_are_left_out_and_counted(device, guard, relevant):
    case = Case(guard, device, 37, 50, 32, labels=2, relevant=relevant, dtype=torch.float32)
    case = with_ceiling(case, guard)
    assert_gradients(case, guard, columns=False)
    assert_sums(case, columns=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_inputs_lose_only_the_rounding_of_slopes(device, guard, dtype):
    case = Case(guard, device, 37, 50, 96, labels=2, relevant=1, dtype=dtype)
    assert_sums(case, columns=True)
    assert_gradients(case, guard, columns=True)


def test_rows_may_lie_apart_in_memory(device, guard):
    case = Case(guard, device, 37, 50, 24, dtype=torch.float32, gap=8)
    assert_sums(case, columns=True)
    assert_gradients(case, guard, columns=True)


def test_many_rows_are_summed_panel_by_panel(device, guard, monkeypatch):
    monkeypatch.setattr("embedtrain_kernels.infonce.PANEL_BLOCKS", 1)
    case = Case(guard, device, 70, 20, 16, relevant=1, dtype=torch.float32)
    assert_sums(case, columns=True)


def test_results_are_the_same_bits_on_every_run(device, guard):
    case = Case(guard, device, 37, 50, 32, dtype=torch.float32)
    arguments = (case.query, case.document, case.scale * LOG2_E, case.candidates, TILE)
    first, second = (negative_sums(*arguments, columns=True) for _ in range(2))
    assert torch.equal(first.row_logsumexp, second.row_logsumexp)
    assert torch.equal(first.column_logsumexp, second.column_logsumexp)


def test_large_logits_neither_overflow_nor_vanish(device, guard):
    """At temperature 0.005 a fixed shift loses every term (logits near 200)."""
    case = Case(guard, device, 33, 40, 32, dtype=torch.float32)
    case.scale.fill_(200.0)
    case.document[:33].copy_(case.query)
    assert_sums(case, columns=True)


def test_partial_sums_of_nothing_merge_to_nothing():
    maximum, total = merge(torch.full((3, 2), -torch.inf), torch.zeros(3, 2))
    assert torch.equal(logarithm(maximum, total), torch.full((2,), -torch.inf))


@pytest.mark.parametrize(("blocks", "streamed"), [(1, 1), (1, 10_000), (300, 10_000), (7, 129)])
def test_ranges_cover_the_streamed_side_once(blocks, streamed):
    splits, length = split(blocks, streamed, 64)
    assert length % 64 == 0
    assert (splits - 1) * length < streamed <= splits * length
