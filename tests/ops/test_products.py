"""Products of 16-bit operands: what they may cost a gradient, and what they leave as it was.

Where a GPU multiplies bfloat16 numbers, a CPU multiplies the same numbers widened: each product is exact in
float32 on both, and only the order of the sums differs. So the rounding that matters is tested here.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.torch_version import TorchVersion

from embedtrain.ops import products
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce
from embedtrain.ops.infonce.plan import problem_rows
from embedtrain.ops.infonce.problem import make_problem
from embedtrain.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
)
from embedtrain.ops.maxsim.scores import maxsim, maxsim_grouped
from embedtrain.types import TokenEmbeddings

BOTH = ("query_to_document", "document_to_query")
CASES = {
    "plain": InfoNCEOptions(),
    "joint": InfoNCEOptions(directions=(*BOTH, "query_to_query")),
    "smoothed": InfoNCEOptions(label_smoothing=0.1, hardness=0.5),
    "margin": InfoNCEOptions(false_negative_margin=0.1),
    "own": InfoNCEOptions(negatives="own"),
}


@pytest.fixture
def in_half(monkeypatch):
    """Let the CPU take the path of a GPU."""
    monkeypatch.setattr(products, "multiplies_half", lambda device: True)
    monkeypatch.setattr("embedtrain.ops.linear_cross_entropy.multiplies_half", lambda device: True)


def trained(seed: int = 0) -> list[torch.Tensor]:
    """Embeddings like those of a trained encoder: positives score 0.70, negatives 0.54 +- 0.03."""
    generator = torch.Generator().manual_seed(seed)
    normal = {"generator": generator, "dtype": torch.float64}
    turned, _ = torch.linalg.qr(torch.randn(768, 256, **normal))
    common = F.normalize(torch.randn(256, **normal), dim=0)
    own, other = F.normalize(torch.randn(2, 128, 256, **normal), dim=2)
    near = F.normalize(0.348 * own + (1 - 0.348**2) ** 0.5 * other, dim=1)
    return [F.normalize(0.54**0.5 * common + 0.46**0.5 * e, dim=1) @ turned.T for e in (own, near)]


def gradients(dtype: torch.dtype, temperature: float, options: InfoNCEOptions) -> torch.Tensor:
    inputs = trained()
    if options.has_margin:  # who is left out depends on the last bit: compare the same numbers
        inputs = [rows.bfloat16() for rows in inputs]
    inputs = [rows.to(dtype).requires_grad_() for rows in inputs]
    learned = torch.tensor(temperature, dtype=torch.float64 if dtype == torch.float64 else None)
    learned.requires_grad_()
    rows, columns = torch.arange(64), torch.arange(128)  # each query owns a positive and a negative
    known = {"owners": columns % 64, "query_ids": rows, "document_ids": columns}
    query, document = inputs[0][:64], inputs[1]
    loss = infonce(query, document, rows[:, None], learned, options=options, **known).loss
    found = torch.autograd.grad(loss, inputs)
    assert all(gradient.dtype == dtype for gradient in found)
    return torch.cat(found).double()


@pytest.mark.parametrize("temperature", [0.05, 0.02, 0.01])
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_operands_cost_a_gradient_one_and_a_half_percent_at_most(
    in_half, small_tiles, case, temperature
):
    truth = gradients(torch.float64, temperature, CASES[case])
    found = gradients(torch.bfloat16, temperature, CASES[case])
    assert truth.norm() > 0
    assert (found - truth).norm() <= 0.015 * truth.norm()


def test_operands_are_sixteen_bits_only_where_that_is_faster(in_half, monkeypatch):
    half, wide = torch.ones(2, dtype=torch.bfloat16), torch.ones(2)
    single = torch.float32
    assert products.operand_dtype(half, half, wide=single) == torch.bfloat16
    assert products.operand_dtype(half, wide, wide=single) == single
    assert products.operand_dtype(half.half(), half.half(), wide=single) == single
    monkeypatch.undo()
    assert products.operand_dtype(half, half, wide=single) == single


def test_exponentials_of_sixteen_bits_lie_in_a_buffer_of_their_own_within_the_budget(in_half):
    query = torch.empty(65_536, 768, dtype=torch.bfloat16, device="meta")
    positives = torch.empty(65_536, 1, dtype=torch.int64, device="meta")
    rows = problem_rows(make_problem(query, query, positives, 0.05))
    assert 6 * rows * 65_536 <= 48 << 20


def test_a_gpu_gets_tiles_by_its_memory(monkeypatch):
    class Properties:
        total_memory = 80 << 30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    cuda = torch.device("cuda", 0)
    assert products.tile_bytes(cuda, 1) == 1 << 30
    Properties.total_memory = 16 << 30
    assert products.tile_bytes(cuda, 1) == 256 << 20
    assert products.tile_bytes(torch.device("cpu"), 7) == 7


def test_float32_products_are_tf32_inside_and_as_before_outside():
    matmul, cuda = torch.backends.cuda.matmul, torch.device("cuda", 0)
    before = matmul.fp32_precision
    with products.as_fine_as(torch.bfloat16, cuda):
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    with products.as_fine_as(torch.float32, cuda):
        assert matmul.fp32_precision == before
    with pytest.raises(ZeroDivisionError), products.as_fine_as(torch.bfloat16, cuda):
        raise ZeroDivisionError
    assert matmul.fp32_precision == before


@pytest.mark.parametrize(("version", "known"), [("2.9.1", False), ("2.10.0", True)])
def test_a_torch_that_cannot_add_to_float32_multiplies_no_halves(version, known, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    assert products.multiplies_half(torch.device("cuda", 0)) == known


def test_maxsim_of_sixteen_bits_is_that_of_the_rounded_tokens(in_half):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 1, 4])

    def texts() -> TokenEmbeddings:
        tokens = torch.randn(8, 16, generator=generator).bfloat16()
        return TokenEmbeddings(tokens, lengths)

    query, document = texts(), texts()
    wide = [TokenEmbeddings(side.tokens.float(), lengths) for side in (query, document)]
    scores = maxsim(query, document)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, maxsim(*wide))
    owners = torch.tensor([0, 0, 2])
    torch.testing.assert_close(
        maxsim_grouped(query, document, owners), maxsim_grouped(*wide, owners)
    )


def test_states_of_sixteen_bits_meet_a_matrix_of_as_many(in_half):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator).bfloat16()
    weight, bias = torch.randn(50, 16, generator=generator), torch.randn(50, generator=generator)
    labels = torch.randint(0, 50, (40,), generator=generator)

    def found(form, dtype):
        inputs = [part.to(dtype).requires_grad_() for part in (weight.bfloat16(), bias)]
        states = hidden.to(torch.bfloat16 if dtype == torch.float32 else dtype).requires_grad_()
        loss = form(states, inputs[0], labels, inputs[1])
        gradients = torch.autograd.grad(loss, [states, *inputs])
        return [loss.double(), *(gradient.double() for gradient in gradients)]

    truth = found(linear_cross_entropy_reference, torch.float64)
    for one, exact in zip(found(linear_cross_entropy, torch.float32), truth, strict=True):
        assert (one - exact).norm() <= 0.01 * exact.norm()
