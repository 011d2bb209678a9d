"""Gloo processes side by side, and a batch that can be cut among them."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors.torch import load_file

from embedtrain.types import Relevance, RetrievalOutputs

GROUP = 3


def _child(rank: int, ranks: int, store: str, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)  # a forked child must not enter an OpenMP region with more
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def on_ranks(ranks: int, work: Callable, *arguments: object) -> None:
    """Run ``work`` in forked processes; an assertion that fails in one of them fails here."""
    with tempfile.TemporaryDirectory() as folder:
        _fork(ranks, _child, (ranks, str(Path(folder) / "store"), work, arguments))


def side_by_side(ranks: int, work: Callable, *arguments: object) -> None:
    """Do what :func:`on_ranks` does without messages, as torchrun starts a command that needs none."""
    _fork(ranks, _child_of_torchrun, (ranks, work, arguments))


def _child_of_torchrun(rank: int, ranks: int, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
    work(*arguments)


def _fork(ranks: int, child: Callable, arguments: tuple) -> None:
    started = mp.start_processes(child, arguments, nprocs=ranks, start_method="fork", join=False)
    deadline = time.monotonic() + 60
    while not started.join(timeout=0.1):
        if time.monotonic() > deadline:
            for process in started.processes:
                process.kill()
            pytest.fail("the ranks wait for each other")


class Encoder(torch.nn.Module):
    """Stands for a model: its gradients are what ranks must agree on."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        self.weight = torch.nn.Parameter(weight)
        self.temperature = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, query: torch.Tensor, document: torch.Tensor, relevance: Relevance):
        encode = lambda rows: F.normalize(rows @ self.weight.T, dim=1)  # noqa: E731
        return RetrievalOutputs(encode(query), encode(document), relevance, self.temperature)


def batch(num_queries: int, first: int = 0, last: int | None = None):
    """Return the part of a batch that a rank holds; ids coincide now and then, also between ranks."""
    generator = torch.Generator().manual_seed(1)
    last = num_queries if last is None else last
    own, candidates = slice(first, last), slice(first * GROUP, last * GROUP)
    query = torch.randn(num_queries, 6, generator=generator, dtype=torch.float64)
    document = torch.randn(num_queries * GROUP, 6, generator=generator, dtype=torch.float64)
    document_ids = torch.randint(0, 2 * num_queries, (num_queries * GROUP,), generator=generator)
    known = torch.randint(-1, 2 * num_queries, (num_queries, 2), generator=generator)
    teacher = torch.randn(num_queries * GROUP, generator=generator)
    numbers = torch.arange(num_queries)
    positives = (numbers[own, None] - first) * GROUP + torch.tensor([0, 1])
    positives[numbers[own] % 2 == 0, 1] = -1
    relevance = Relevance(
        query_ids=(numbers % max(num_queries - 1, 1))[own],
        document_ids=document_ids[candidates],
        owners=numbers.repeat_interleave(GROUP)[candidates] - first,
        positives=positives,
        known_positives=known[own],
        teacher_scores=teacher[candidates],
    )
    return query[own], document[candidates], relevance


def average_over_ranks(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Do what DDP does to gradients."""
    results = [tensor.detach().clone() for tensor in tensors]
    for result in results:
        dist.all_reduce(result)
        result.div_(dist.get_world_size())
    return results


def own_rows(sizes: list[int]) -> tuple[int, int]:
    rank = dist.get_rank()
    return sum(sizes[:rank]), sum(sizes[: rank + 1])


def loss_share(num_queries: int) -> float:
    """Return the factor of a rank's mean loss with which the average over ranks is the global mean."""
    if not dist.is_initialized():
        return 1.0
    total = torch.tensor(num_queries)
    dist.all_reduce(total)
    return num_queries * dist.get_world_size() / int(total)


def exported_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a run exported."""
    return load_file(run / "model" / "model.safetensors")
