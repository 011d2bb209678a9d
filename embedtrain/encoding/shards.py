"""Ranks of one mining, started by torchrun: they share a file system and need no messages."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

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
    """Read the rank from the environment that torchrun sets."""
    return Shard(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def use_own_device() -> None:
    """Let each process of a machine compute on a GPU of its own, where there are any."""
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def wait_for(paths: Sequence[Path], *, unless: Path | None = None) -> None:
    """Wait until other ranks have made their files, or somebody that for which they are wanted.

    torchrun ends all ranks when one fails.
    """
    for path in paths:
        while not (path.exists() or (unless is not None and unless.exists())):
            time.sleep(POLL_SECONDS)
