"""Ranks of one mining, started by torchrun: they share a file system and need no messages."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from embedtrain.errors import UserError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Shard:
    """This process among all that mine together."""

    rank: int = 0
    ranks: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process joins the parts."""
        return self.rank == 0

    def takes(self, number: int) -> bool:
        """Tell whether a numbered piece of work is this process's."""
        return number % self.ranks == self.rank


def current_shard() -> Shard:
    """Read the rank from the environment that torchrun sets.

    Raises:
        UserError: If it names no rank of so many: nobody would do this one's work, and all would wait for it.
    """
    ranks = _number("WORLD_SIZE", 1, least=1)
    rank = _number("RANK", 0)
    if rank >= ranks:
        raise _wrong("RANK", f"is no rank of {ranks}", rank)
    return Shard(rank, ranks)


def use_own_device() -> None:
    """Let each process of a machine compute on a GPU of its own, where there are any.

    Raises:
        UserError: If the machine has fewer GPUs than processes.
    """
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        number, there = _number("LOCAL_RANK", 0), torch.cuda.device_count()
        if number >= there:
            raise _wrong("LOCAL_RANK", f"is beyond the {there} GPUs of this machine", number)
        torch.cuda.set_device(number)


def _number(name: str, otherwise: int, least: int = 0) -> int:
    value = os.environ.get(name, str(otherwise))
    if not value.isdecimal() or int(value) < least:
        raise _wrong(name, f"is no number of at least {least}", value)
    return int(value)


def _wrong(name: str, problem: str, value: object) -> UserError:
    cure = "Start all processes by torchrun, or unset RANK, WORLD_SIZE and LOCAL_RANK"
    return UserError(f"environment variable {name}", problem, got=value, cure=cure)


def wait_for(paths: Sequence[Path], *, unless: Path | None = None) -> None:
    """Wait until other ranks have made their files, or somebody that for which they are wanted.

    torchrun ends all ranks when one fails.
    """
    for path in paths:
        while not (path.exists() or (unless is not None and unless.exists())):
            time.sleep(POLL_SECONDS)
