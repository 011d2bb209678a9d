"""Tiles against the whole matrix: same values, same gradients, less memory, counted GEMMs."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce

EVERY_DIRECTION = (
    "query_to_document",
    "document_to_query",
    "query_to_query",
    "document_to_document",
)
SYMMETRIC = InfoNCEOptions(
    directions=("query_to_document", "document_to_query"), partition="per_direction"
)
CASES = {
    "rows": InfoNCEOptions(),
    "symmetric": SYMMETRIC,
    "joint": InfoNCEOptions(directions=EVERY_DIRECTION),
    "own": InfoNCEOptions(negatives="own"),
    "others": InfoNCEOptions(negatives="others"),
    "guarded": InfoNCEOptions(false_negative_margin=0.1, label_smoothing=0.1),
}

directions = st.sampled_from(
    [
        (EVERY_DIRECTION[:1], "joint"),
        (EVERY_DIRECTION[:2], "joint"),
        (EVERY_DIRECTION[:2], "per_direction"),
        (EVERY_DIRECTION[1::-1], "joint"),
        ((EVERY_DIRECTION[0], EVERY_DIRECTION[2]), "joint"),
        ((EVERY_DIRECTION[3], EVERY_DIRECTION[0]), "joint"),
        (EVERY_DIRECTION, "joint"),
    ]
)
some_options = st.fixed_dictionaries(
    {
        "directions": directions,
        "negatives": st.sampled_from(["all", "all", "own", "others"]),
        "several_positives": st.sampled_from(["average", "any", "decoupled"]),
        "false_negative_margin": st.sampled_from([None, None, 0.1, -0.1]),
        "false_negative_margin_kind": st.sampled_from(["absolute", "relative"]),
        "hardness": st.sampled_from([0.0, 0.0, 1.5]),
        "label_smoothing": st.sampled_from([0.0, 0.0, 0.1]),
        "positive_margin": st.sampled_from([0.0, 0.3]),
    }
)
quietly = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def options_from(drawn: dict) -> InfoNCEOptions:
    """Build options outside of the strategy: type checking draws random numbers of its own."""
    directions, partition = drawn["directions"]
    return InfoNCEOptions(**{**drawn, "directions": directions, "partition": partition})


def temperatures(kind: str) -> float | torch.Tensor:
    if kind == "number":
        return 0.2
    shape = {"scalar": (), "one": (1,)}[kind]
    generator = torch.Generator().manual_seed(3)
    return (
        torch.rand(shape, generator=generator, dtype=torch.float64) * 0.3 + 0.1
    ).requires_grad_()


def evaluate(batch: dict, temperature: float | torch.Tensor, backend: str, **more: object):
    """Return the output and the gradients of 1.7 times the loss."""
    inputs = {name: batch[name].clone().requires_grad_() for name in ("query", "document")}
    learned = [temperature] if isinstance(temperature, torch.Tensor) else []
    output = infonce(**{**batch, **inputs}, temperature=temperature, backend=backend, **more)
    gradients = torch.autograd.grad(1.7 * output.loss, [*inputs.values(), *learned])
    return [*output, *gradients]


def assert_same(found: list, expected: list, tolerance: float = 1e-11) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@given(
    options=some_options,
    kind=st.sampled_from(["number", "scalar", "one"]),
    num_queries=st.integers(1, 13),
    seed=st.integers(0, 5),
    with_ids=st.booleans(),
)
@settings(quietly, max_examples=150)
def test_tiles_agree_with_the_whole_matrix_in_every_option(
    make_batch, small_tiles, options, kind, num_queries, seed, with_ids
):
    batch = make_batch(num_queries, seed=seed)
    if not with_ids:
        batch = {name: batch[name] for name in ("query", "document", "positives", "owners")}
    more = {"options": options_from(options), "reduction": "sum" if seed % 2 else "mean"}
    temperature = temperatures(kind)
    found = evaluate(batch, temperature, "chunked", **more)
    assert_same(found, evaluate(batch, temperature, "reference", **more))


@given(
    cut=st.integers(0, 8), options=some_options, backend=st.sampled_from(["chunked", "reference"])
)
@settings(quietly, max_examples=40)
def test_parts_of_the_queries_add_up_to_the_whole(make_batch, small_tiles, cut, options, backend):
    batch = make_batch(8)
    inputs = {name: batch[name].requires_grad_() for name in ("query", "document")}
    named = {
        "options": options_from(options),
        "temperature": 0.2,
        "backend": backend,
        "reduction": "sum",
    }
    ids = batch["document_ids"][batch["positives"].clamp_min(0)]
    ids = ids.masked_fill(batch["positives"] < 0, -1)
    everything = {
        "all_query": batch["query"],
        "all_query_ids": batch["query_ids"],
        "all_known_positives": torch.cat([ids, batch["known_positives"]], 1),
    }
    shared = {name: batch[name] for name in ("document", "document_ids")}
    parts = []
    for rows in (slice(0, cut), slice(cut, 8)):
        if rows.start < rows.stop:
            own = {name: value[rows] for name, value in batch.items() if name not in shared}
            own_first = {name: value.roll(-rows.start, 0) for name, value in everything.items()}
            own["owners"] = (batch["owners"] - rows.start) % 8
            parts.append(infonce(**own, **shared, **own_first, **named).loss)
    whole = infonce(**batch, **named).loss
    found = torch.autograd.grad(torch.stack(parts).sum(), list(inputs.values()))
    expected = torch.autograd.grad(whole, list(inputs.values()))
    assert_same([torch.stack(parts).sum(), *found], [whole, *expected])


@given(seed=st.integers(0, 20), case=st.sampled_from(sorted(CASES)))
@settings(quietly, max_examples=20)
def test_permuting_documents_does_not_change_the_loss(make_batch, small_tiles, seed, case):
    batch = make_batch(7)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    permuted = {
        **batch,
        **{name: batch[name][order] for name in ("document", "document_ids", "owners")},
        "positives": place[batch["positives"].clamp_min(0)].where(batch["positives"] >= 0, -1),
    }
    found = evaluate(permuted, 0.2, "chunked", options=CASES[case])
    found[-1] = found[-1][place]
    assert_same(found, evaluate(batch, 0.2, "chunked", options=CASES[case]))


@given(seed=st.integers(0, 20), case=st.sampled_from(["rows", "own", "guarded"]))
@settings(quietly, max_examples=20)
def test_a_document_that_nobody_may_see_gets_no_gradient(make_batch, small_tiles, seed, case):
    batch = make_batch(6, seed=seed)
    batch["document_ids"][5] = 999
    batch["known_positives"][:, 0] = 999
    *_, gradient = evaluate(batch, 0.2, "chunked", options=CASES[case])
    assert gradient[5].abs().max() == 0.0
    assert gradient.abs().max() > 0.0


@given(seed=st.integers(0, 20), case=st.sampled_from(sorted(CASES)))
@settings(quietly, max_examples=20)
def test_gradients_are_orthogonal_to_embeddings_that_are_normalised(
    make_batch, small_tiles, seed, case
):
    batch = make_batch(6, seed=seed)
    raw = {name: (batch[name] * 3.0).requires_grad_() for name in ("query", "document")}
    unit = {name: F.normalize(rows, dim=1) for name, rows in raw.items()}
    loss = infonce(**{**batch, **unit}, temperature=0.2, options=CASES[case]).loss
    for rows, gradient in zip(raw.values(), torch.autograd.grad(loss, raw.values()), strict=True):
        torch.testing.assert_close((rows * gradient).sum(1), torch.zeros(len(rows)).double())
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_equal_scores_cost_the_logarithm_of_the_number_of_candidates(backend):
    query, document = torch.eye(3)[[0] * 4], torch.eye(3)[[1] * 9]
    loss = infonce(query, document, torch.arange(4)[:, None], 0.05, backend=backend).loss
    assert loss.item() == pytest.approx(math.log(9.0))


@pytest.mark.parametrize("backend", ["chunked", "reference"])
@pytest.mark.parametrize(
    ("options", "floor"),
    [
        (InfoNCEOptions(), 0.0),
        (InfoNCEOptions(directions=EVERY_DIRECTION), math.log(2.0)),
        (
            InfoNCEOptions(directions=EVERY_DIRECTION[:2], several_positives="decoupled"),
            math.log(2.0),
        ),
        (SYMMETRIC, 0.0),
    ],
)
def test_a_lonely_pair_costs_nothing_or_log_two_where_it_stands_twice(
    make_batch, backend, options, floor
):
    query = F.normalize(torch.ones(1, 3, dtype=torch.float64), dim=1).requires_grad_()
    first, owners = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    loss = infonce(query, query, first, 0.05, owners=owners, options=options, backend=backend).loss
    assert loss.item() == pytest.approx(floor, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, query)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("case", CASES)
def test_gradients_pass_gradcheck(make_batch, small_tiles, case):
    batch = make_batch(5, dim=3)
    inputs = [batch[name].requires_grad_() for name in ("query", "document")]
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    others = {name: batch[name] for name in batch if name not in ("query", "document")}

    def loss(query, document, temperature):
        return infonce(query, document, temperature=temperature, **others, options=CASES[case]).loss

    assert torch.autograd.gradcheck(loss, (*inputs, temperature))


def test_two_queries_may_share_a_positive_in_the_symmetric_loss(make_batch, small_tiles):
    batch = make_batch(6)
    batch = {name: batch[name] for name in ("query", "document", "positives")}
    batch["positives"] = torch.tensor([[0], [0], [3], [0], [4], [5]])
    found = evaluate(batch, temperatures("scalar"), "chunked", options=SYMMETRIC)
    expected = evaluate(batch, temperatures("scalar"), "reference", options=SYMMETRIC)
    assert_same(found, expected)


def test_two_backward_passes_through_one_graph_give_the_same_gradients(make_batch, small_tiles):
    batch = make_batch(6)
    query = batch["query"].requires_grad_()
    loss = infonce(**batch, temperature=0.2).loss
    (first,) = torch.autograd.grad(2 * loss, query, retain_graph=True)
    expected = first.clone()
    (second,) = torch.autograd.grad(2 * loss, query)
    assert torch.equal(second, expected)
    assert torch.equal(first, expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, query)


@pytest.mark.parametrize("case", CASES)
def test_the_same_call_gives_the_same_bits(make_batch, small_tiles, case):
    batch = make_batch(12, dtype=torch.float32)
    first, second = (evaluate(batch, 0.05, "chunked", options=CASES[case]) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@given(options=some_options, seed=st.integers(0, 5))
@settings(quietly, max_examples=20)
def test_tiles_agree_where_queries_share_their_candidates(make_batch, small_tiles, options, seed):
    own_rows = torch.tensor([0, 1, 0, 3, 3, 5, 6])
    batch = make_batch(7, seed=seed) | {"own_rows": own_rows}
    more = {"options": options_from(options)}
    expected = evaluate(batch, 0.2, "reference", **more)
    assert_same(evaluate(batch, 0.2, "chunked", **more), expected)
