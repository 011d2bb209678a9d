import mmap
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from embedtrain.models.recall import recall_contexts

TOKENS, WIDTH = 8, 4


def feed_forward(*, bias: bool = True, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(WIDTH, 4 * WIDTH, bias=bias), nn.GELU(), nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(4 * WIDTH, WIDTH, bias=bias)).double()


def gradients(
    block: nn.Module, rows: torch.Tensor, *, recall: bool, times: int = 1
) -> list[torch.Tensor]:
    block.zero_grad()
    rows = rows.clone().requires_grad_()
    torch.manual_seed(1)
    if recall:
        result = checkpoint(block, rows, use_reentrant=False, context_fn=recall_contexts)
    else:
        result = block(rows)
    loss = result.double().square().sum()
    for _ in range(times):
        loss.backward(retain_graph=True)
    return [rows.grad, *(parameter.grad.clone() for parameter in block.parameters())]


def random_rows() -> torch.Tensor:
    return torch.randn(1, TOKENS, WIDTH, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recalling_gives_the_gradients_of_the_plain_layers(bias: bool, dropout: float) -> None:
    block, rows = feed_forward(bias=bias, dropout=dropout), random_rows()
    for plain, recalled in zip(
        gradients(block, rows, recall=False), gradients(block, rows, recall=True), strict=True
    ):
        torch.testing.assert_close(recalled, plain, rtol=1e-12, atol=1e-12)


def test_a_retained_graph_can_be_gone_through_again() -> None:
    block, rows = feed_forward(), random_rows()
    once, twice = (gradients(block, rows, recall=True, times=times) for times in (1, 2))
    for first, second in zip(once, twice, strict=True):
        torch.testing.assert_close(second, 2 * first)


def test_autocast_gives_the_same_bits_as_without_recalling() -> None:
    block, rows = feed_forward().float(), random_rows().float()
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients(block, rows, recall=False)
        recalled = gradients(block, rows, recall=True)
    for first, second in zip(plain, recalled, strict=True):
        assert first.dtype == second.dtype == torch.float32
        torch.testing.assert_close(second, first, rtol=1e-2, atol=1e-2)


def test_the_narrowing_layer_is_computed_once() -> None:
    block, rows = feed_forward(bias=False), random_rows()
    product = 2 * TOKENS * WIDTH * 4 * WIDTH
    with FlopCounterMode(display=False) as counter:
        gradients(block, rows, recall=True)
    forward, again, backward = 2, 1, 4
    assert counter.get_total_flops() == (forward + again + backward) * product


def test_frozen_layers_get_no_gradient() -> None:
    block, rows = feed_forward(), random_rows()
    block[3].requires_grad_(False)
    rows.requires_grad_()
    result = checkpoint(block, rows, use_reentrant=False, context_fn=recall_contexts)
    result.sum().backward()
    assert block[3].weight.grad is None
    assert block[0].weight.grad is not None


def test_what_is_kept_lies_outside_the_heap_and_is_let_go(monkeypatch) -> None:
    monkeypatch.setattr("embedtrain.models.recall.OWN_PAGES", 1)
    pages, mapped = [], mmap.mmap

    def counted(*arguments: int) -> mmap.mmap:
        own = mapped(*arguments)
        pages.append(len(own))
        weakref.finalize(own, pages.pop)
        return own

    monkeypatch.setattr("embedtrain.models.recall.mmap.mmap", counted)
    block, rows = feed_forward(dropout=0.5), random_rows()
    torch.manual_seed(1)
    result = checkpoint(
        block, rows.requires_grad_(), use_reentrant=False, context_fn=recall_contexts
    )
    assert pages == [8 * TOKENS * WIDTH]
    result.square().sum().backward()
    assert pages == []
    found = gradients(block, rows.detach(), recall=True)
    for plain, recalled in zip(gradients(block, rows.detach(), recall=False), found, strict=True):
        torch.testing.assert_close(recalled, plain, rtol=1e-12, atol=1e-12)


def test_no_pages_are_no_memory(monkeypatch) -> None:
    def full(*_: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("embedtrain.models.recall.OWN_PAGES", 1)
    monkeypatch.setattr("embedtrain.models.recall.mmap.mmap", full)
    with pytest.raises(MemoryError, match="Cannot allocate"):
        gradients(feed_forward(), random_rows(), recall=True)
