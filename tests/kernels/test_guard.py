import pytest
import torch

pytest.importorskip("triton")
from guard_kernels import copy, double_all, sum_all


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
