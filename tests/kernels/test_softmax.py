import pytest
import torch

pytest.importorskip("triton")
from embedtrain_kernels import softmax

from embedtrain.ops import exponentials
from embedtrain.ops.infonce.loss import infonce


@pytest.mark.parametrize("columns", [1, 7, 64, 200])
def test_rows_become_exponentials_in_place(device, guard, monkeypatch, columns):
    monkeypatch.setattr(softmax, "BLOCK", 64)
    logits = 50 * torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    logits[1] = -torch.inf
    logits[2, : columns // 2] = -torch.inf
    tile = guard.around(logits.to(device), gap=3)
    maximum, total = softmax.exponentiate(tile)
    truth = logits.double().to(device)
    expected = exponentials.exponentiate(truth)
    for found, exact in zip((maximum, total, tile), (*expected, truth), strict=True):
        assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_exponentials_may_go_elsewhere_and_scores_be_scaled_first(
    device, guard, monkeypatch, dtype
):
    monkeypatch.setattr(softmax, "BLOCK", 64)
    scores = torch.randn(5, 200, generator=torch.Generator().manual_seed(0)).to(device)
    scores[1, :150] = -torch.inf
    scale = guard.around(torch.linspace(1, 50, 5, device=device))
    out = guard.empty(5, 200, dtype=dtype, device=device)
    tile = guard.around(scores, gap=3)
    maximum, total = softmax.exponentiate(tile, scale, out)
    truth, exact = scores.double(), torch.empty(5, 200, dtype=torch.float64, device=device)
    expected = exponentials.exponentiate(truth, scale.double(), exact)
    assert torch.equal(tile, scores)
    for found, right in zip((maximum, total), expected, strict=True):
        assert torch.allclose(found.double(), right, rtol=1e-5, atol=1e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    assert torch.allclose(out.double(), exact, rtol=tolerance, atol=1e-6)


def test_a_nan_reaches_the_sum(device, guard):
    tile = guard.around(torch.tensor([[0.0, float("nan")], [0.0, 0.0]], device=device))
    _, total = softmax.exponentiate(tile)
    assert total[0].isnan()
    assert total[1] == 2.0


def test_the_chunked_backend_may_use_the_kernel(device, monkeypatch):
    used = []
    monkeypatch.setattr(exponentials, "_kernel", lambda _: softmax)
    monkeypatch.setattr(
        softmax,
        "exponentiate",
        lambda *tiles, plain=softmax.exponentiate: used.append(1) or plain(*tiles),
    )
    embeddings = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)).to(device)
    positives = torch.arange(9, device=device)[:, None]
    losses = [
        infonce(embeddings, embeddings, positives, 1.0, backend=backend).loss
        for backend in ("chunked", "reference")
    ]
    assert used
    assert torch.allclose(*losses)
