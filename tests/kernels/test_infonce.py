"""The InfoNCE kernels against dense float64, over ragged shapes, masks and types."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels.configurations import Tile
from embedtrain_kernels.infonce import LOG2_E, gradients, logarithm, merge, negative_sums
from embedtrain_kernels.infonce_arguments import Candidates, Scores, Slopes

from embedtrain.ops.products import add_product

TILE = Tile(rows=32, columns=32, depth=32, num_warps=4, num_stages=1)
RELATIVE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 8e-3}


class Case:
    """Random embeddings, masks and slopes, and what float64 makes of them."""

    def __init__(
        self,
        guard,
        device,
        queries,
        documents,
        dim,
        *,
        labels=1,
        relevant=0,
        answers=0,
        dtype=torch.float32,
        gap=0,
    ):
        generator = torch.Generator().manual_seed(queries * documents + dim)
        shapes = {"query": (queries, dim), "document": (documents, dim)}
        for name, shape in shapes.items():
            values = torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=1)
            setattr(self, name, guard.around(values.to(device, dtype), gap))
        self.scale = guard.around(5 + 30 * torch.rand(queries, generator=generator).to(device))

        def draw(*size, low=0):
            drawn = torch.randint(low, documents // 3 + 1, size, generator=generator)
            return guard.around(drawn.int().to(device))

        places = torch.rand(queries, documents, generator=generator).argsort(1)[:, :labels]
        listed = places.int().to(device)
        listed[::3, 1:] = -1
        self.candidates = Candidates(
            labels=guard.around(listed),
            relevant=draw(queries, relevant, low=-1) if relevant else None,
            keys=draw(documents) if relevant else None,
            anchor_keys=draw(queries) if answers else None,
            answers=draw(documents, answers, low=-1) if answers else None,
        )

    @property
    def scores(self):
        scale = self.scale[None]
        return Scores(self.query, self.document, scale, scale * LOG2_E)

    @property
    def similarity(self):
        return self.query.double() @ self.document.double().T

    def negatives(self):
        """Which scores are those of negatives."""
        columns, listed = (
            torch.arange(len(self.document), device=self.query.device),
            self.candidates,
        )
        kept = ~(listed.labels[:, :, None] == columns).any(1)
        if listed.relevant is not None:
            kept &= ~(listed.relevant[:, :, None] == listed.keys).any(1)
        if listed.answers is not None:
            kept &= ~(listed.answers.T[:, None] == listed.anchor_keys[:, None]).any(0)
        if listed.ceiling is not None:
            kept &= self.similarity <= listed.ceiling[:, None].double()
        return kept

    def logits(self):
        scores = self.similarity * self.scale.double()[:, None]
        return scores.masked_fill(~self.negatives(), -torch.inf)


def with_ceiling(case, guard):
    """The same case, its most similar candidates left out; the ceiling lies between two scores."""
    ordered = case.similarity.sort(1).values
    middle = len(case.document) * 3 // 4
    ceiling = (ordered[:, middle] + ordered[:, middle - 1]) / 2
    case.candidates = replace(case.candidates, ceiling=guard.around(ceiling.float()))
    return case


def assert_close(value, truth, dtype):
    assert value.isfinite().all()
    assert (value - truth).abs().max() <= RELATIVE[dtype] * truth.abs().max()


def assert_sums(case, *, columns=False, tile=TILE):
    sums = negative_sums(case.scores, case.candidates, tile, columns=columns)
    logits = case.logits()
    found = [
        (sums.row_maximum[0], logits.amax(1)),
        (sums.row_logsumexp[0], logits.logsumexp(1)),
    ]
    if columns:
        found.append((sums.column_logsumexp, logits.logsumexp(0)))
    else:
        assert sums.column_logsumexp is None
    for value, truth in found:  # products of 16-bit values are exact in float32
        empty = truth == -torch.inf
        assert torch.equal(value == -torch.inf, empty)
        if not empty.all():
            assert_close(value[~empty] / LOG2_E, truth[~empty], torch.float32)
    if not case.candidates.guarded:
        assert sums.number is None
        return
    kept = case.negatives()
    assert torch.equal(sums.number[0].long(), kept.sum(1))
    assert_close(sums.logits[0] / LOG2_E, logits.where(kept, 0.0).sum(1), torch.float32)
    case.candidates, guarded = replace(case.candidates, ceiling=None), case.candidates
    assert torch.equal(sums.num_suspected[0].long(), case.negatives().sum(1) - kept.sum(1))
    case.candidates = guarded


def assert_gradients(case, guard, *, columns=False, tile=TILE):
    queries, documents = case.negatives().shape
    logits, dtype, device = case.logits(), case.query.dtype, case.query.device
    generator = torch.Generator().manual_seed(7)

    def draw(*size):
        return guard.around(torch.rand(size, generator=generator).to(device))

    row, column = draw(queries), draw(documents) if columns else None
    label = guard.around(-draw(*case.candidates.labels.shape))
    constant = guard.around(draw(queries) / documents) if case.candidates.guarded else None
    slope = logits.softmax(1).nan_to_num(0.0) * row.double()[:, None]
    if columns:
        slope += logits.softmax(0).nan_to_num(0.0) * column.double()
    if constant is not None:
        slope += constant.double()[:, None] * case.negatives()
    for place, listed in enumerate(case.candidates.labels.T.long()):
        used = listed >= 0
        slope[used.nonzero()[:, 0], listed[used]] = label[used, place].double()
    slope = slope * case.scale.double()[:, None]
    slopes = Slopes(
        row_logsumexp=guard.around(finite(logits.logsumexp(1) * LOG2_E)[None]),
        row=row[None],
        label=label[None],
        constant=constant,
        column_logsumexp=guard.around(finite(logits.logsumexp(0) * LOG2_E)) if columns else None,
        column=column,
    )
    found = gradients(case.scores, slopes, case.candidates, tile, add_product)
    assert_close(found.anchor, slope @ case.document.double(), dtype)
    assert_close(found.candidate, slope.T @ case.query.double(), dtype)
    return found


def finite(log_sum):
    return log_sum.masked_fill(log_sum == -torch.inf, torch.inf).float()


SHAPES = [(1, 1, 16), (5, 70, 24), (33, 17, 96), (40, 41, 100), (50, 64, 48)]


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize(("queries", "documents", "dim"), SHAPES)
def test_ragged_shapes_agree_with_float64(device, guard, queries, documents, dim, columns):
    case = Case(guard, device, queries, documents, dim)
    assert_sums(case, columns=columns)
    assert_gradients(case, guard, columns=columns)


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize(("labels", "relevant"), [(2, 0), (1, 1), (3, 5)])
def test_listed_documents_are_no_negatives(device, guard, labels, relevant, columns):
    case = Case(guard, device, 37, 50, 32, labels=labels, relevant=relevant)
    assert_sums(case, columns=columns)
    assert_gradients(case, guard, columns=columns)


@pytest.mark.parametrize(("relevant", "answers"), [(0, 1), (2, 3)])
def test_candidates_may_name_the_anchors_they_are_no_negatives_of(device, guard, relevant, answers):
    case = Case(guard, device, 37, 50, 32, relevant=relevant, answers=answers)
    assert_sums(case)
    assert_gradients(case, guard)


@pytest.mark.parametrize("relevant", [0, 2])
def test_candidates_above_the_ceiling_are_left_out_and_counted(device, guard, relevant):
    case = with_ceiling(Case(guard, device, 37, 50, 32, labels=2, relevant=relevant), guard)
    assert_sums(case)
    assert_gradients(case, guard)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_inputs_lose_only_the_rounding_of_slopes(device, guard, dtype):
    case = Case(guard, device, 37, 50, 96, labels=2, relevant=1, dtype=dtype)
    assert_sums(case, columns=True)
    assert_gradients(case, guard, columns=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_embeddings_may_have_4096_coordinates(device, guard, dtype):
    case = Case(guard, device, 9, 19, 4096, dtype=dtype)
    tile = replace(TILE, depth=512)
    assert_sums(case, tile=tile)
    assert_gradients(case, guard, tile=tile)


def test_rows_may_lie_apart_in_memory(device, guard):
    case = Case(guard, device, 37, 50, 24, gap=8)
    assert_sums(case, columns=True)
    assert_gradients(case, guard, columns=True)


def test_many_rows_are_taken_panel_by_panel(device, guard, monkeypatch):
    whole = assert_gradients(Case(guard, device, 70, 20, 48, relevant=1, answers=1), guard)
    monkeypatch.setattr("embedtrain_kernels.infonce.PANEL_BLOCKS", 1)
    monkeypatch.setattr("embedtrain_kernels.infonce.SLOPE_BYTES", 1)
    case = Case(guard, device, 70, 20, 48, relevant=1, answers=1)
    assert_sums(case)
    assert torch.equal(assert_gradients(case, guard).anchor, whole.anchor)
    case = Case(guard, device, 70, 20, 48, relevant=1)
    assert_sums(case, columns=True)
    assert_gradients(case, guard, columns=True)


def test_only_wanted_gradients_are_made(device, guard):
    case = Case(guard, device, 5, 7, 16)
    slopes = Slopes(case.scale[None], case.scale[None], torch.zeros(1, 5, 1, device=device))
    arguments = (case.scores, slopes, case.candidates, TILE, add_product)
    assert gradients(*arguments, anchor=False).anchor is None
    assert gradients(*arguments, candidate=False).candidate is None


def test_results_are_the_same_bits_on_every_run(device, guard):
    case = Case(guard, device, 37, 50, 32)
    arguments = (case.scores, case.candidates, TILE)
    first, second = (negative_sums(*arguments, columns=True) for _ in range(2))
    assert torch.equal(first.row_logsumexp, second.row_logsumexp)
    assert torch.equal(first.column_logsumexp, second.column_logsumexp)


def test_large_logits_neither_overflow_nor_vanish(device, guard):
    """At temperature 0.005 a fixed shift loses every term (logits near 200)."""
    case = Case(guard, device, 33, 40, 32)
    case.scale.fill_(200.0)
    case.document[:33].copy_(case.query)
    assert_sums(case, columns=True)


def test_partial_sums_of_nothing_merge_to_nothing():
    maximum, total = merge(torch.full((3, 2), -torch.inf), torch.zeros(3, 2))
    assert torch.equal(logarithm(maximum, total), torch.full((2,), -torch.inf))
