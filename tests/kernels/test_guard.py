import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language


@triton.jit
def copy(source, out, block: tl.constexpr):
    places = tl.arange(0, block)
    tl.store(out + places, tl.load(source + places).to(out.dtype.element_ty))


@triton.jit
def double_all(source, out, length, block: tl.constexpr):
    places = tl.arange(0, block)
    values = tl.load(source + places, mask=places < length, other=0.0)
    tl.store(out + places, 2.0 * values)


@triton.jit
def sum_all(source, out, length, masked: tl.constexpr, block: tl.constexpr):
    places = tl.arange(0, block)
    inside = (places < length) | (not masked)
    tl.store(out, tl.sum(tl.load(source + places, mask=inside, other=0.0), 0))


def test_a_read_past_the_end_becomes_nan(device, guard):
    source = guard.around(torch.ones(40, device=device))
    out = torch.empty(1, device=device)
    sum_all[(1,)](source, out, 40, masked=True, block=64)
    assert out.item() == 40.0
    sum_all[(1,)](source, out, 40, masked=False, block=64)
    assert out.isnan().all()


def test_a_write_past_the_end_is_noticed(device, guard):
    source = guard.around(torch.ones(40, device=device))
    double_all[(1,)](source, torch.empty(40, device=device), 40, block=64)
    with pytest.raises(AssertionError, match="outside its buffer"):
        guard.check()
    guard.buffers.clear()


def test_bfloat16_rounds_to_nearest(device, guard):
    values = torch.randn(64, device=device)
    out = torch.empty(64, dtype=torch.bfloat16, device=device)
    copy[(1,)](values, out, block=64)
    assert torch.equal(out, values.bfloat16())
