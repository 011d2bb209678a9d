"""Processes that train together: how they meet, wait for each other and agree."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from embedtrain.encoding.shards import Shard, current_shard
from embedtrain.errors import UserError
from embedtrain.training.settings import TrainerConfig

PATIENCE = timedelta(days=7)
"""How long ranks wait while the first one prepares, measures or exports."""

_waiting: list[dist.ProcessGroup] = []


def is_rank() -> bool:
    """Whether this process was started as one of several, by us or by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def must_launch(config: TrainerConfig) -> bool:
    """Whether this process has to start the ranks that the settings ask for.

    Raises:
        UserError: If it is a rank itself but of another number of them, or cannot start them alone.
    """
    if is_rank():
        shard = current_shard()
        if shard.ranks != config.num_ranks:
            raise UserError(
                "trainer.devices",
                f"times trainer.nodes is {config.num_ranks}, but torchrun started {shard.ranks} processes",
                got=config.devices,
                cure="Give both the same number",
            )
        return False
    if config.nodes > 1:
        raise UserError(
            "trainer.nodes",
            "is more than this process can start",
            got=config.nodes,
            cure=f"On each machine run torchrun --nnodes {config.nodes} --nproc-per-node "
            f"{config.devices} ... -m embedtrain train ...",
        )
    return config.shares_work


@contextmanager
def joined(accelerator: str) -> Iterator[None]:
    """Meet the other ranks for the time of the block; without any, do nothing.

    Messages between CPUs go through gloo, between GPUs through NCCL.
    """
    if not is_rank() or dist.is_initialized():
        yield
        return
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    _waiting.append(dist.new_group(backend="gloo", timeout=PATIENCE))
    yield
    _waiting.clear()  # not after an error: leaving a group may wait for ranks that are gone
    dist.destroy_process_group()


def patient_group() -> dist.ProcessGroup | None:
    """Return the group whose messages may take their time; None is the usual one."""
    return _waiting[0] if _waiting else None


def wait_for_all() -> None:
    """Wait until every rank is here, however long that takes."""
    if dist.is_initialized():
        dist.barrier(group=patient_group())


def on_first_rank(work: Callable[[], object]) -> None:
    """Do something once, for all ranks."""
    if current_shard().is_first:
        work()
    wait_for_all()


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Let the first rank pass the block before the others: it fills caches that they read."""
    if not current_shard().is_first:
        wait_for_all()
    yield
    if current_shard().is_first:
        wait_for_all()


def own_shard() -> Shard:
    """Return which of the ranks this one is; alone where no group was joined."""
    if dist.is_available() and dist.is_initialized():
        return Shard(dist.get_rank(), dist.get_world_size())
    return Shard()


def any_rank(flags: Sequence[bool]) -> list[bool]:
    """Return which of the flags are set on any rank."""
    return [bool(number) for number in _largest(list(flags))]


def largest(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    return int(_largest([number])[0])


def _largest(numbers: list[int]) -> list[int]:
    if own_shard().ranks == 1:
        return numbers
    found = torch.tensor(numbers, dtype=torch.int64)
    dist.all_reduce(found, dist.ReduceOp.MAX, group=patient_group())
    return [int(number) for number in found]


def average(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each figure over the ranks that have it."""
    if own_shard().ranks == 1:
        return dict(figures)
    everyone: list[dict[str, float]] = [{}] * own_shard().ranks
    dist.all_gather_object(everyone, dict(figures), group=patient_group())
    means = {}
    for name in dict.fromkeys(name for one in everyone for name in one):
        values = [one[name] for one in everyone if name in one]
        means[name] = sum(values) / len(values)
    return means
