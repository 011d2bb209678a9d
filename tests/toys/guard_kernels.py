"""Kernels that read or write where they should not; imported with the others, see `conftest.py`."""

import triton
import triton.language as tl


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
