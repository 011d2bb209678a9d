"""Workflow: time the fused operations against the chunked ones on this device, for ``backend: auto``."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import KERNEL_DTYPES, Backend
from embedtrain.ops.choices import Measured, Operation, device_name, keep
from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import Relevance, TokenEmbeddings

RUNS, WARM_UPS = 5, 2


@dataclass(frozen=True)
class Shape:
    """A problem to time: as many documents as queries, each text of so many tokens for MaxSim."""

    operation: Operation
    texts: int
    dim: int
    query_tokens: int = 32
    document_tokens: int = 180


SHAPES = (
    *(
        Shape("infonce", texts, dim)
        for dim in (128, 256, 384, 768)
        for texts in (2048, 8192, 32768)
    ),
    *(Shape("maxsim", texts, dim) for dim in (64, 128) for texts in (64, 512)),
)


def tune(
    device: torch.device | None = None,
    shapes: Iterable[Shape] = SHAPES,
    dtypes: Iterable[torch.dtype] = (torch.bfloat16, torch.float32),
) -> list[Measured]:
    """Time each shape in both ways, write the times into the cache and return them.

    What the kernels do not support is left out: ``auto`` is chunked there anyway.

    Raises:
        UserError: If there is no CUDA device, or no kernel runs on it.
    """
    if device is None:
        if not torch.cuda.is_available():
            raise UserError(
                "doctor --tune",
                "times kernels on a CUDA device and there is none",
                cure="Run it on the machine that trains; without it auto goes by a table",
            )
        device = torch.device("cuda", torch.cuda.current_device())
    problems = [(shape, dtype) for dtype in dtypes for shape in shapes]
    found = [_measure(shape, device, dtype) for shape, dtype in problems]
    times = [one for one in found if one is not None]
    if not times:
        raise UserError(
            "doctor --tune",
            "found no kernel that runs on this device",
            got=device_name(device),
            cure="There is nothing to tune: auto is chunked here",
        )
    keep(device, times)
    return times


def _measure(shape: Shape, device: torch.device, dtype: torch.dtype) -> Measured | None:
    """Return the median seconds of a shape, forward and backward; None where no kernel computes it."""
    make = _infonce if shape.operation == "infonce" else _maxsim
    work = make(shape, device, dtype)
    try:
        fused = _seconds(work, "fused", device)
    except UserError:
        return None
    chunked = _seconds(work, "chunked", device)
    name, scores = KERNEL_DTYPES[dtype], shape.texts**2
    return Measured(shape.operation, name, shape.dim, scores, fused, chunked)


def _seconds(work: Callable[[Backend], Tensor], backend: Backend, device: torch.device) -> float:
    times = []
    for _ in range(WARM_UPS + RUNS):
        _finish(device)
        start = time.perf_counter()
        work(backend).backward()  # type: ignore[no-untyped-call]
        _finish(device)
        times.append(time.perf_counter() - start)
    return sorted(times[WARM_UPS:])[RUNS // 2]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _vectors(rows: int, dim: int, device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=1)
    return vectors.to(device, dtype).requires_grad_()


def _infonce(shape: Shape, device: torch.device, dtype: torch.dtype) -> Callable[[Backend], Tensor]:
    query, document = (_vectors(shape.texts, shape.dim, device, dtype, seed) for seed in (0, 1))
    rows = torch.arange(shape.texts)
    # As in a run: the CPU keeps what it knows of the ids, so that no way waits to be told.
    known = Relevance(rows, rows, rows, rows[:, None], rows.new_empty(shape.texts, 0)).to(device)

    def work(backend: Backend) -> Tensor:
        return infonce(
            query,
            document,
            known.positives,
            0.05,
            backend=backend,
            query_ids=known.query_ids,
            document_ids=known.document_ids,
            owners=known.owners,
            known_positives=known.known_positives,
            relevance=known,
        ).loss

    return work


def _maxsim(shape: Shape, device: torch.device, dtype: torch.dtype) -> Callable[[Backend], Tensor]:
    def texts(length: int, seed: int) -> TokenEmbeddings:
        tokens = _vectors(shape.texts * length, shape.dim, device, dtype, seed)
        sizes = torch.full((shape.texts,), length)
        return TokenEmbeddings(tokens, sizes.to(device), host_lengths=sizes)

    query, document = texts(shape.query_tokens, 0), texts(shape.document_tokens, 1)
    return lambda backend: maxsim(query, document, backend=backend).sum()
