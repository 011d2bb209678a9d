"""One set of kernel tests, two ways to run it.

``pytest``: Triton's interpreter on CPU tensors, where there is no CUDA device. ``pytest -m gpu``: the compiled
kernels on a CUDA device. The ``conftest.py`` above this one imports them for one or the other.
"""

import sys

import numpy as np
import pytest
import torch

MARGIN = 64  # elements before and after a buffer; keeps its alignment


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "cuda":
        return torch.device("cuda")
    if torch.cuda.is_available():
        pytest.skip("a device runs the compiled kernels: -m gpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return torch.device("cpu")


def poison(dtype):
    return float("nan") if dtype.is_floating_point else 0x7F7F7F


class Guard:
    """Hands out tensors with poison around them and remembers to look whether it was overwritten."""

    def __init__(self):
        self.buffers = []

    def around(self, tensor, gap=0):
        """A copy of ``tensor`` inside a poisoned buffer, its rows ``gap`` elements apart."""
        shape = (*tensor.shape[:-1], tensor.shape[-1] + gap) if tensor.dim() else (1,)
        buffer = torch.full(
            (int(np.prod(shape)) + 2 * MARGIN,),
            poison(tensor.dtype),
            dtype=tensor.dtype,
            device=tensor.device,
        )
        inner = buffer[MARGIN : len(buffer) - MARGIN].view(shape)
        inner = inner[..., : tensor.shape[-1]] if tensor.dim() else inner[0]
        inside = torch.zeros_like(buffer, dtype=torch.bool)
        window = inside[MARGIN : len(buffer) - MARGIN].view(shape)
        (window[..., : tensor.shape[-1]] if tensor.dim() else window[0]).fill_(True)
        self.buffers.append((buffer, inside))
        return inner.copy_(tensor)

    def empty(self, *size, dtype=torch.float32, device="cpu"):
        shape = size[0] if len(size) == 1 and not isinstance(size[0], int) else size
        return self.around(torch.full(tuple(shape), poison(dtype), dtype=dtype, device=device))

    def check(self):
        for buffer, inside in self.buffers:
            outside = buffer[~inside]
            intact = (
                outside.isnan() if buffer.is_floating_point() else outside == poison(buffer.dtype)
            )
            assert intact.all(), "a kernel wrote outside its buffer"


@pytest.fixture
def guard(monkeypatch):
    """Poison around every buffer that a launch allocates; checked when the test ends."""
    found = Guard()
    monkeypatch.setattr(torch, "empty", found.empty)
    monkeypatch.setattr(
        torch,
        "empty_like",
        lambda like: found.empty(*like.shape, dtype=like.dtype, device=like.device),
    )
    yield found
    found.check()


@pytest.fixture(scope="session", autouse=True)
def exact_bfloat16():
    """Teach the interpreter bfloat16: it multiplies raw bits and truncates (triton 3.7, issue 11584)."""
    if (
        sys.platform != "linux"
    ):  # on Linux it is there, and without it nothing of this folder would be tested
        pytest.importorskip("triton")
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    dot, truncate = builder.create_dot, builder.create_fp_trunc

    def widen(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def rounding_dot(self, left, right, *rest):
        return dot(self, widen(left), widen(right), *rest)

    def rounding_truncate(self, handle, kind):
        if handle.dtype.scalar != tl.float32 or kind.scalar != tl.bfloat16:
            return truncate(self, handle, kind)
        bits = np.ascontiguousarray(handle.data, dtype=np.float32).view(np.uint32)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return interpreter.TensorHandle(nearest.astype(np.uint16), tl.bfloat16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_dot", rounding_dot)
        patch.setattr(builder, "create_fp_trunc", rounding_truncate)
        yield
