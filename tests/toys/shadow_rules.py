"""What torch's CUDA code does that a shadow device has to know: where the host waits, and what stands for ``torch.cuda``.

The rules were read in torch 2.13. ``segment_reduce``, ``bincount`` and the like wait because their CUDA code reads numbers
back; indexing by a boolean mask waits because the size of its result is a number on the device.
"""

import ctypes
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # its tables must be made before anything is replaced
import torch.nn.functional as F
from torch.utils import _foreach_utils
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)
COPIES = {"_to_copy", "copy_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh",
    "set_", "_unsafe_view", "_reshape_alias", "resize_", "is_same_size", "record_stream",
}  # fmt: skip
"""Operations that start nothing on the device."""
READS = {
    "_local_scalar_dense": 1, "nonzero": 1, "masked_select": 1, "_unique2": 1, "unique_dim": 1,
    "unique_consecutive": 1, "equal": 1, "bincount": 2, "segment_reduce": 2, "multinomial": 1,
    "is_nonzero": 1, "linalg_eigvalsh": 1, "_linalg_eigh": 1, "_linalg_svd": 1,
}  # fmt: skip
"""How many numbers one call reads back."""
FLOAT32_UNDER_AUTOCAST = (
    "layer_norm", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "exp", "log", "rsqrt", "cumsum",
    "softplus", "pow.Tensor_Scalar", "linalg_vector_norm", "logsumexp", "reciprocal",
)  # fmt: skip
"""What CUDA's autocast computes in float32 and a CPU's does not."""

WIDE_PRODUCTS = {
    "mm.dtype": lambda a, b, dtype: torch.mm(a.to(dtype), b.to(dtype)),
    "mm.dtype_out": lambda a, b, dtype, *, out: torch.mm(a.to(dtype), b.to(dtype), out=out),
    "bmm.dtype": lambda a, b, dtype: torch.bmm(a.to(dtype), b.to(dtype)),
    "addmm.dtype_out": lambda c, a, b, dtype, *, out: torch.addmm(
        c, a.to(dtype), b.to(dtype), out=out
    ),
}
"""Products of 16-bit numbers with a float32 result, which a CPU does not have."""

_real = SimpleNamespace(
    attention=F.scaled_dot_product_attention,
    autocast=torch.autocast,
    is_enabled=torch.is_autocast_enabled,
    dtype=torch.get_autocast_dtype,
    grouped=_foreach_utils._group_tensors_by_device_and_dtype,
    empty=torch.empty,
)


@dataclass
class Step:
    """What one step did."""

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often the host waited, by what and by line."""
    launches: Counter[str] = field(default_factory=Counter)
    """How often each operation started work on the device."""
    attention: Counter[str] = field(default_factory=Counter)
    """Which attention torch would have taken."""


def wait_of(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Any]
) -> tuple[str, int] | None:
    """Return what makes the host wait in an operation, and how often; None if nothing does."""
    if name in COPIES:
        return _wait_of_copy(name, args, kwargs)
    if not given:
        return None
    if name in READS and not kwargs.get("unsafe", False):
        return name, READS[name]
    if name == "repeat_interleave" and func._overloadname == "Tensor":
        return None if kwargs.get("output_size") is not None else (f"{name}, no output_size", 1)
    if name not in INDEXING:
        return None
    chosen = [index for index in args[1] if index is not None]
    masks = sum(index.dtype in (torch.bool, torch.uint8) for index in chosen)
    fills = "put" in name and args[2].numel() == 1 and len(chosen) == 1  # torch calls masked_fill
    if masks and not fills:
        return f"{name} by a boolean mask", masks
    on_host = [index for index in chosen if not index.is_cuda]
    return (f"{name} by an index on the host", 1) if on_host and not masks else None


def _wait_of_copy(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, int] | None:
    writes = name == "copy_"
    source = args[1] if writes else args[0]
    to_device = args[0].is_cuda if writes else "cuda" in str(kwargs.get("device") or source.device)
    # Copies by `to` that leave the device come through the tensor's own method.
    if source.is_cuda == to_device or (source.is_cuda and not writes):
        return None
    free = kwargs.get("non_blocking", writes and len(args) > 2 and args[2])
    host = args[0] if source.is_cuda else source
    if free and (getattr(host, "_pinned", False) or (not host.ndim and not source.is_cuda)):
        return None
    way = "to the host" if source.is_cuda else "from the host"
    return f"copy {way}, {'pageable memory' if free else 'blocking'}", 1


def stand_ins(shadow: Any, tensor_class: type) -> dict[str, object]:
    """Return what stands for parts of torch while a shadow device is on, by their names."""

    def nothing(*_: object, **__: object) -> None:
        return None

    def host(kind: str) -> str:
        return "cpu" if kind == "cuda" else kind

    def autocast(device_type: str, *a: Any, **k: Any) -> Any:
        return _real.autocast(host(device_type), *a, **k)

    def maker(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a, device=None, **k: make(*a, **k) if device is None else make(*a, **k).to(device)  # fmt: skip

    def pinned(tensor: Any, *_: object) -> Any:
        copy = tensor.clone()
        copy._pinned = True
        return copy

    def empty(*size: object, pin_memory: bool = False, **settings: Any) -> Any:
        made = _real.empty(*size, **settings)
        if pin_memory:
            made._pinned = True
        return made

    def grouped(*a: object, **k: object) -> Any:  # made in C++, which sees a CPU
        return {(CUDA, dtype): found for (_, dtype), found in _real.grouped(*a, **k).items()}

    stream = SimpleNamespace(
        synchronize=lambda: shadow.wait("stream.synchronize"), device=CUDA, cuda_stream=0,
        wait_stream=nothing, wait_event=nothing, record_event=nothing,
    )  # fmt: skip
    cuda = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1,
        "is_bf16_supported": lambda *_, **__: True, "is_current_stream_capturing": lambda: False,
        "current_device": lambda: 0, "get_device_name": lambda *_: "shadow", "_initialized": True,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: SimpleNamespace(
            name="shadow", major=9, minor=0, multi_processor_count=132, total_memory=80 << 30
        ),
        "synchronize": lambda *_: shadow.wait("cuda.synchronize"),
        "current_stream": lambda *_: stream, "default_stream": lambda *_: stream,
        "device": lambda *_: nullcontext(), "Event": partial(Event, shadow), "get_rng_state": shadow.random_state,
    }  # fmt: skip
    for name in ("_lazy_init", "set_device", "empty_cache", "manual_seed", "manual_seed_all"):
        cuda[name] = nothing
    cuda["set_rng_state"] = shadow.replay
    return {f"torch.cuda.{name}": value for name, value in cuda.items()} | {
        "torch.tensor": maker(torch.tensor),
        "torch.as_tensor": maker(torch.as_tensor),
        "torch.empty": empty,
        "torch.Tensor.pin_memory": pinned,
        "torch.Tensor.is_pinned": lambda tensor, *_: getattr(tensor, "_pinned", False),
        "torch.autocast": autocast,
        "torch.amp.autocast": autocast,
        "torch.get_autocast_dtype": lambda kind="cuda": _real.dtype(host(kind)),
        "torch.is_autocast_enabled": lambda kind="cuda": _real.is_enabled(host(kind)),
        "torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype": grouped,
        "torch.optim.optimizer._group_tensors_by_device_and_dtype": grouped,
        "torch.utils._foreach_utils._foreach_supported_types": [
            torch.Tensor, torch.nn.Parameter, tensor_class,
        ],
        "torch.nn.functional.scaled_dot_product_attention": partial(attention, shadow),
    }  # fmt: skip


class Event:
    """A mark in the queue of a device; to wait for one of an earlier step costs nothing, for the queue is past it."""

    def __init__(self, shadow: Any, **_: object) -> None:
        self.shadow = shadow
        self.step: Step | None = None

    def record(self, *_: object) -> None:
        self.step = self.shadow.now

    def query(self) -> bool:
        return self.step is not self.shadow.now

    def synchronize(self) -> None:
        if not self.query():
            self.shadow.wait("event.synchronize")


def attention(
    shadow: Any, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):  # fmt: skip
    """Be one operation each way, as on CUDA, and note which one torch would take; dropout is left out."""
    if not query.is_cuda:
        return _real.attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    is_flash = query.dtype in (torch.float16, torch.bfloat16) and attn_mask is None
    name = "flash" if is_flash else "whole score matrix" if enable_gqa else "memory efficient"
    shadow.now.attention[f"{name}, {'no mask' if attn_mask is None else 'mask'}"] += 1
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(times, 1) for x in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        added = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = added.masked_fill_(attn_mask.logical_not(), -torch.inf)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


def let_cuda_resolve() -> None:
    """Let torch resolve the name "cuda" without an index, on builds with and without CUDA.

    A build for the CPU has no guard of devices to ask; it gets one without devices, all of whose methods return 0.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    table = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if not table[1]:  # 0 is the CPU, 1 is CUDA
        zero = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)
        methods = (ctypes.c_void_p * 64)(*[ctypes.cast(zero, ctypes.c_void_p)] * 64)
        guard = ctypes.c_void_p(ctypes.addressof(methods))
        table[1] = ctypes.addressof(guard)
        let_cuda_resolve.kept = zero, methods, guard  # torch holds their addresses
    torch._C._ensureCUDADeviceGuardSet()


def in_float32(overload: Any) -> Callable[..., Any]:
    """Return an operation as CUDA's autocast runs it."""

    def run(*args: object, **kwargs: object) -> Any:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return overload(*tree_map(_widened, args), **kwargs)

    return run


def _widened(value: Any) -> Any:
    is_narrow = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_narrow else value


def on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an operation for the CPU that computes it."""
    kept = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    return kept | ({"device": torch.device("cpu")} if kept.get("device") is not None else {})
