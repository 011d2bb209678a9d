"""A CUDA device that is not there: tensors say cuda:0, a CPU computes, and every wait of the host is noted.

    with ShadowCuda() as shadow:
        model = shadow.move(model)
        batch = batch.to("cuda")
        with shadow.step() as step:
            loss = model(batch); loss.backward(); optimizer.step()
        assert not step.waits, shadow.report(step)

A wait is blamed on the line of the package that caused it, in a backward pass on that of the operation whose backward it
is. Operands on different devices are refused, as a device would (in forward passes). It knows nothing of time, of CUDA's
rounding, or of Triton. Only Python sees cuda:0: in C++ these are CPU tensors, for the autograd engine of torch 2.13 asks
an absent accelerator for streams. Hence autocast is a CPU's with CUDA's list of float32 operations laid over it.
A launch is an operation: a sort, which is several kernels, counts once.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import shadow_kernels
import torch
from shadow_rules import (
    COPIES,
    CUDA,
    FLOAT32_UNDER_AUTOCAST,
    INDEXING,
    NO_KERNEL,
    WIDE_PRODUCTS,
    Step,
    in_float32,
    let_cuda_resolve,
    on_cpu,
    stand_ins,
    wait_of,
)
from shadow_schema import change_tensors, schema_of
from torch.utils._python_dispatch import TorchDispatchMode

# The first backward pass of a process starts autograd's threads for the devices that it finds. Let it find none: a process
# with such threads has no forks that train.
torch.ones(1, requires_grad=True).sum().backward()

HERE = __file__
_active: "ShadowCuda | None" = None


class ShadowTensor(torch.Tensor):
    """Says that it is on cuda:0 and holds a CPU tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda, is_cpu = CUDA, True, False

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        kind = {"dtype": inner.dtype, "layout": inner.layout, "device": "cpu"}
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), **layout, **kind, requires_grad=requires_grad
        )
        tensor._inner = inner
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self):
        return f"ShadowTensor({self._inner!r})"

    def get_device(self):
        return 0

    def data_ptr(self):
        return self._inner.data_ptr()

    def cpu(self):
        return _ToHost.apply(self)

    def cuda(self, *_, **__):
        return self

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self):
        raise TypeError("a tensor on cuda:0 has no numpy array: use Tensor.cpu() first")

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], torch.Tensor):
            args = (args[0].device, args[0].dtype)
        copies = kwargs.pop("copy", False)
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)
        leaves = device is not None and device.type == "cpu"
        moved = _ToHost.apply(self) if leaves else self
        same = dtype in (None, moved.dtype) and not copies
        return moved if same else moved.type(dtype or moved.dtype)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        if _active is not None:
            _active.wait("copy to the host")
        return tensor._inner.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ShadowTensor(gradient)


class _OneLaunch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, shadow, name, function, *rows):
        ctx.rows = [_inner(row).detach().requires_grad_() for row in rows]
        with torch.enable_grad():
            ctx.result = function(*ctx.rows)
        ctx.launched = shadow, name
        return ShadowTensor(ctx.result.detach())

    @staticmethod
    def backward(ctx, gradient):
        shadow, name = ctx.launched
        shadow.now.launches[f"{name}, backward"] += 1
        found = torch.autograd.grad(ctx.result, ctx.rows, _inner(gradient))
        return None, None, None, *map(ShadowTensor, found)


class ShadowCuda(TorchDispatchMode):
    """The device, while it is on.

    ``user`` names parts of paths whose lines are blamed; ``passing`` ends the names of files that only pass calls on.
    Without ``knows_lines`` a wait in a built-in backward pass is counted and nobody blamed.
    """

    def __init__(
        self, user=("/embedtrain/",), passing=("recall.py", "packed.py"), *, knows_lines=True
    ):
        super().__init__()
        self.knows_lines = knows_lines
        self.user, self.passing, self.now = user, passing, Step()
        self.saved_states = self.replayed_states = 0

    def __enter__(self):
        global _active  # noqa: PLW0603 - of the one device
        let_cuda_resolve()
        self._stack, library = contextlib.ExitStack(), torch.library.Library("aten", "IMPL")
        self._stack.callback(library._destroy)
        kernels = shadow_kernels.stand_ins(self)
        for name, value in (stand_ins(self, ShadowTensor) | kernels).items():
            self._stack.enter_context(mock.patch(name, value, create=True))
        for name in FLOAT32_UNDER_AUTOCAST:
            packet, _, overload = name.partition(".")
            found = getattr(getattr(torch.ops.aten, packet), overload or "default")
            with contextlib.suppress(RuntimeError):  # a CPU's own list has it
                library.impl(name, in_float32(found), "AutocastCPU")
        for name, product in WIDE_PRODUCTS.items():
            library.impl(name, product, "CPU")
        self._stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        # Lets nodes of the graph know the lines that made them, for twice the time.
        traced = torch.autograd.set_detect_anomaly(self.knows_lines, check_nan=False)
        self._stack.enter_context(traced)
        _active = self
        return super().__enter__()

    def __exit__(self, *error):
        global _active  # noqa: PLW0603
        super().__exit__(*error)
        _active = None
        self._stack.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def move(self, module: torch.nn.Module) -> torch.nn.Module:
        """Put weights and buffers of a module on the device; shared ones stay shared."""
        known: dict[int, Any] = {}
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for name, old in table.items():
                    if old is not None:
                        table[name] = known.setdefault(id(old), _moved(old))
            if "_device" in part.__dict__:
                part._device = CUDA  # Lightning's own note
        return module

    @contextlib.contextmanager
    def step(self) -> Iterator[Step]:
        """Count from zero."""
        self.now = Step()
        yield self.now

    def operation(self, name, function):
        """Let ``function`` stand for an operation of one launch each way; what it gets besides rows is its own."""

        def run(*rows):
            self.now.launches[name] += 1
            return _OneLaunch.apply(self, name, function, *rows)

        return run

    def random_state(self, *_: object) -> torch.Tensor:
        """Stand for the device's random state."""
        self.saved_states += 1
        return torch.zeros(16, dtype=torch.uint8)

    def replay(self, *_: object) -> None:
        """Take the random state back."""
        self.replayed_states += 1

    def wait(self, what: str, count: int = 1) -> None:
        """Note that the host waits."""
        self.now.waits[what, self._place()] += count

    def _place(self) -> str:
        """Return the line to blame."""
        frame, frames, node = sys._getframe(1), [], torch._C._current_autograd_node()
        while frame is not None:
            path = frame.f_code.co_filename
            if node is not None and path.endswith("autograd/graph.py"):
                break
            frames.append((path, frame.f_lineno))
            frame = frame.f_back
        frames = [one for one in frames if one[0] != HERE and not one[0].endswith(self.passing)]
        mine = [f"{path}:{line}" for path, line in frames if self._is_user(path)]
        others = [f"{path}:{line}" for path, line in frames if "site-packages" not in path]
        if mine or node is None:
            return f"{'backward: ' if node is not None else ''}{[*mine, *others, '?'][0]}"
        return f"backward of {self._made_at(node)}"

    def _is_user(self, path: str) -> bool:
        return any(part in path for part in self.user) and not path.endswith(self.passing)

    def _made_at(self, node: Any) -> str:
        """Return the user's line that made a node of the graph."""
        text = "".join(node.metadata.get("traceback_", []))
        lines = [line for line in text.splitlines() if 'File "' in line]
        places = [(line.split('"')[1], line.split("line ")[1].split(",")[0]) for line in lines]
        mine = [f"{path}:{number}" for path, number in places if self._is_user(path)]
        return mine[-1] if mine else "?"

    def report(self, step: Step) -> str:
        """Return a step in words, offenders first."""
        lines = [f"{step.waits.total()} waits, {step.launches.total()} launches"]
        lines += [f"  {n} x {what}: {place}" for (what, place), n in step.waits.most_common()]
        lines += [f"  {n} x attention: {what}" for what, n in step.attention.items()]
        most = ", ".join(f"{name} {n}" for name, n in step.launches.most_common(8))
        return "\n".join([*lines, f"  most launches: {most}"])


def _run(func, args, kwargs):
    """Run one operation on the CPU, count it, and say that its results are on the device."""
    shadow, schema = _active, schema_of(func)
    name, tensors = schema.name, []
    change_tensors(tensors.append, (*args, *kwargs.values()))
    given = [x for x in tensors if isinstance(x, ShadowTensor)]
    mixed = given and any(x.ndim and not isinstance(x, ShadowTensor) for x in tensors)
    if mixed and torch._C._current_autograd_node() is None and name not in COPIES | INDEXING:
        raise RuntimeError(f"{name}: expected all tensors on one device, found cuda:0 and cpu")
    if shadow is not None and (wait := wait_of(func, name, args, kwargs, given)):
        shadow.wait(*wait)
    wished = "cuda" in str(kwargs.get("device"))
    on_device = isinstance(args[0], ShadowTensor) if name == "copy_" else bool(given) or wished
    inner = {key: change_tensors(_inner, value) for key, value in on_cpu(kwargs).items()}
    result = func(*change_tensors(_inner, args), **inner)
    written = schema.written_by(args, kwargs)
    view = not written and schema.returns_view
    if shadow is not None and on_device and not view and name not in NO_KERNEL:
        shadow.now.launches[name] += 1
    if schema.returns_written and schema.num_returns == len(written):
        return written[0] if len(written) == 1 else tuple(written)
    return change_tensors(ShadowTensor, result) if on_device else result


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    new = ShadowTensor(tensor.detach().clone())
    is_weight = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(new, tensor.requires_grad) if is_weight else new


def _inner(value: Any) -> Any:
    return value._inner if isinstance(value, ShadowTensor) else value
