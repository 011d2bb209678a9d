"""Which part of the work is this process's, by what torchrun says."""

import pytest
import torch

from embedtrain.encoding.shards import Shard, current_shard, use_own_device
from embedtrain.errors import UserError


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert current_shard() == Shard(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert current_shard() == Shard(2, 4)


@pytest.mark.parametrize(
    ("rank", "ranks", "named"),
    [("1", None, "RANK"), ("4", "4", "RANK"), ("x", "2", "RANK"), ("-1", "2", "RANK"),
     ("0", "0", "WORLD_SIZE"), ("0", "two", "WORLD_SIZE"), ("", "2", "RANK")],
)  # fmt: skip
def test_a_rank_that_is_none_ends_in_one_line_instead_of_waiting(rank, ranks, named, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    if ranks is None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("WORLD_SIZE", ranks)
    with pytest.raises(UserError, match=f"^environment variable {named} is no "):
        current_shard()


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="beyond the 2 GPUs"):
        use_own_device()
