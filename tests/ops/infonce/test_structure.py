"""What the chunked backend may cost: GEMMs, memory, precision; nothing here measures time."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from embedtrain.errors import UserError
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce
from embedtrain.ops.infonce.plan import is_symmetric, problem_rows
from embedtrain.ops.infonce.problem import make_problem

EVERY_DIRECTION = (
    "query_to_document",
    "document_to_query",
    "query_to_query",
    "document_to_document",
)
SYMMETRIC = InfoNCEOptions(directions=EVERY_DIRECTION[:2], partition="per_direction")
JOINT = InfoNCEOptions(directions=EVERY_DIRECTION)
NUM_ROWS, DIM = 48, 8


class LargestStorage(TorchDispatchMode):
    """Remembers the largest memory that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.num_bytes = max(self.num_bytes, leaf.untyped_storage().nbytes())
        return result


@pytest.fixture
def square():
    """As many documents as queries, so that every direction costs the same."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, NUM_ROWS, DIM, generator=generator)
    query, document = F.normalize(rows, dim=2).unbind()
    return {
        "query": query.clone().requires_grad_(),
        "document": document.clone().requires_grad_(),
        "positives": torch.arange(NUM_ROWS)[:, None],
        "query_ids": torch.arange(NUM_ROWS),
        "document_ids": torch.arange(NUM_ROWS) % (NUM_ROWS - 5),
        "owners": torch.arange(NUM_ROWS),
    }


def gemms(batch: dict, options: InfoNCEOptions, *, backward: bool = True) -> float:
    with FlopCounterMode(display=False) as counter:
        loss = infonce(**batch, temperature=0.1, options=options).loss
        if backward:
            loss.backward()
    return counter.get_total_flops() / (2 * NUM_ROWS * NUM_ROWS * DIM)


@pytest.mark.parametrize(
    ("options", "expected"), [(InfoNCEOptions(), 3), (SYMMETRIC, 4), (JOINT, 12)]
)
def test_loss_and_gradients_cost_exactly_the_gemms_that_the_scheme_needs(
    square, small_tiles, options, expected
):
    assert gemms(square, options) == expected


def test_gradients_that_nobody_wants_cost_nothing(square, small_tiles):
    square["document"] = square["document"].detach()
    assert gemms(square, InfoNCEOptions()) == 2
    square["query"] = square["query"].detach()
    assert gemms(square, InfoNCEOptions(), backward=False) == 1
    assert gemms(square, SYMMETRIC, backward=False) == 1
    square["query"].requires_grad_()
    with torch.no_grad():
        assert gemms(square, InfoNCEOptions(), backward=False) == 1


def test_own_negatives_need_no_gemm(square, small_tiles):
    assert gemms(square, InfoNCEOptions(negatives="own")) == 0


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        (InfoNCEOptions(), 1),
        (SYMMETRIC, 1),
        (JOINT, 4),
        (InfoNCEOptions(false_negative_margin=0.1, label_smoothing=0.1, hardness=1.0), 1),
    ],
)
def test_nothing_larger_than_one_tile_is_stored(square, small_tiles, options, widths):
    inputs = square["query"].untyped_storage().nbytes()
    with LargestStorage() as seen:
        infonce(**square, temperature=0.1, options=options).loss.backward()
    assert seen.num_bytes <= max(4 * widths * NUM_ROWS * 4, inputs)
    assert seen.num_bytes < NUM_ROWS * NUM_ROWS * 4 / 2


def test_a_tile_keeps_to_the_budget_and_is_not_too_thin(monkeypatch):
    def rows(num_queries: int, num_documents: int, dim: int = 768) -> tuple[int, int]:
        query = torch.empty(num_queries, dim, device="meta")
        document = torch.empty(num_documents, dim, device="meta")
        positives = torch.empty(num_queries, 1, dtype=torch.int64)
        rows = problem_rows(make_problem(query, document, positives, 0.05))
        return rows, 4 * rows * num_documents

    for num_queries in (100, 16_384, 65_536):
        tile_rows, num_bytes = rows(num_queries, num_queries)
        assert num_bytes <= 48 << 20
        assert tile_rows >= min(num_queries, 128)
    assert rows(1_024, 4_000_000)[0] == 128


def test_a_margin_hardness_or_smoothing_keeps_the_symmetric_loss_from_sharing_tiles(square):
    def shares(**more: object) -> bool:
        options = InfoNCEOptions(directions=EVERY_DIRECTION[:2], **more)
        return is_symmetric(make_problem(**square, temperature=0.1, options=options))

    assert shares()
    for more in ({"false_negative_margin": 0.1}, {"hardness": 1.0}, {"label_smoothing": 0.1}):
        assert not shares(**more)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("temperature", [0.05, 0.01, 0.005])
@pytest.mark.parametrize("options", [InfoNCEOptions(), SYMMETRIC])
def test_rounding_costs_no_more_than_in_the_reference(
    square, small_tiles, dtype, temperature, options
):
    def gradients(backend: str, dtype: torch.dtype) -> torch.Tensor:
        inputs = [square[name].detach().to(kept).to(dtype) for name in ("query", "document")]
        inputs = [rows.requires_grad_() for rows in inputs]
        others = {name: square[name] for name in square if name not in ("query", "document")}
        output = infonce(
            *inputs, **others, temperature=temperature, options=options, backend=backend
        )
        found = torch.autograd.grad(output.loss, inputs)
        assert all(gradient.dtype == dtype for gradient in found)
        return torch.cat([output.loss[None].double(), *(g.flatten().double() for g in found)])

    kept = dtype
    truth = gradients("reference", torch.float64)
    error = (gradients("chunked", dtype) - truth).norm() / truth.norm()
    earned = (gradients("reference", dtype) - truth).norm() / truth.norm()
    assert error <= 1.1 * earned + torch.finfo(torch.float32).eps


@pytest.mark.parametrize(("temperature", "budget"), [(0.05, 0.005), (0.02, 0.006), (0.01, 0.015)])
def test_bfloat16_embeddings_keep_the_gradient(small_tiles, temperature, budget):
    """Embeddings like those of a trained encoder: positives score 0.70, negatives 0.54 +- 0.03."""
    torch.manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(768, 256, dtype=torch.float64))
    common = F.normalize(torch.randn(256, dtype=torch.float64), dim=0)
    own, other = F.normalize(torch.randn(2, 128, 256, dtype=torch.float64), dim=2)
    near = F.normalize(0.348 * own + (1 - 0.348**2) ** 0.5 * other, dim=1)
    exact = [F.normalize(0.54**0.5 * common + 0.46**0.5 * e, dim=1) @ turned.T for e in (own, near)]

    def gradients(dtype: torch.dtype) -> torch.Tensor:
        inputs = [rows.to(dtype).requires_grad_() for rows in exact]
        loss = infonce(*inputs, torch.arange(128)[:, None], temperature).loss
        return torch.cat(torch.autograd.grad(loss, inputs)).double()

    truth = gradients(torch.float64)
    assert (gradients(torch.bfloat16) - truth).norm() <= budget * truth.norm()


def test_autocast_does_not_round_the_logits(square, small_tiles):
    plain = infonce(**square, temperature=0.01).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(infonce(**square, temperature=0.01).loss, plain)
        reference = infonce(**square, temperature=0.01, backend="reference").loss
    torch.testing.assert_close(reference, plain)


@pytest.mark.parametrize("options", [InfoNCEOptions(), SYMMETRIC, JOINT])
def test_a_query_whose_candidates_are_all_known_positives_gives_no_nan(small_tiles, options):
    rows = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    query, document = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    same, order = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    output = infonce(
        query,
        document,
        order[:, None],
        0.05,
        query_ids=same,
        document_ids=same,
        owners=order,
        options=options,
    )
    output.loss.backward()
    assert all(torch.isfinite(tensor).all() for tensor in (*output, query.grad, document.grad))
    assert output.masked_ratio == 1.0
    assert output.margin == 0.0


def test_a_learned_temperature_moves_as_the_finite_difference_says(square, small_tiles):
    temperature = torch.tensor([0.1], requires_grad=True)
    infonce(**square, temperature=temperature).loss.backward()
    step = 1e-3
    double = {
        name: value.double() if value.is_floating_point() else value
        for name, value in square.items()
    }
    above, below = (infonce(**double, temperature=0.1 + d).loss for d in (step, -step))
    assert temperature.grad.shape == (1,)
    assert temperature.grad.item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"directions": ("query_to_query",)}, "must be distinct and hold query_to_document"),
        ({"directions": EVERY_DIRECTION, "partition": "per_direction"}, "no lower bound"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
        ({"hardness": -1.0}, "hardness must not be negative"),
    ],
)
def test_options_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        InfoNCEOptions(**settings)


def test_missing_owners_and_impossible_temperatures_are_refused(square):
    with pytest.raises(UserError, match="temperature must be positive; got 0"):
        infonce(**square, temperature=0.0)
    del square["owners"]
    with pytest.raises(UserError, match="owners are needed"):
        infonce(**square, temperature=0.1, options=InfoNCEOptions(negatives="own"))
