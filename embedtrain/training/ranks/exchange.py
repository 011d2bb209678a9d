"""Values that go from every rank to the first, and from the first to all; between processors, not GPUs."""

import pickle
from typing import TypeVar

import torch
import torch.distributed as dist

from embedtrain.training.ranks.processes import own_shard, patient_group

T = TypeVar("T")


def to_first(value: T) -> list[T] | None:
    """Return the values of all ranks by their numbers on the first rank, None on the others.

    They may be of any size. One travels after the other: the first rank holds one message besides the values.
    """
    shard, group = own_shard(), patient_group()
    if shard.ranks == 1:
        return [value]
    if not shard.is_first:
        message = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        dist.send(torch.tensor([len(message)]), 0, group=group)
        dist.send(message, 0, group=group)
        return None
    values = [value]
    for rank in range(1, shard.ranks):
        size = torch.zeros(1, dtype=torch.int64)
        dist.recv(size, rank, group=group)
        message = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(message, rank, group=group)
        values.append(pickle.loads(message.numpy().data))
    return values


def from_first(value: T) -> T:
    """Return the first rank's value on all ranks."""
    if own_shard().ranks == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=patient_group())
    return box[0]
