"""Other processes build batches ahead of their steps, and it makes no difference to what is trained."""

import os
import signal
import subprocess

import pytest
import torch

from embedtrain import workers as processes
from embedtrain.contract.texts import Contract, Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import SourceConfig
from embedtrain.data.mixture import Cut, Mixture
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import load_backbone
from embedtrain.training.ahead import built_ahead, num_workers
from embedtrain.training.bad_batch import _tensors
from embedtrain.training.datamodule import BatchStream
from embedtrain.training.refresh import LateStream
from embedtrain.training.settings import TrainerConfig

CONTRACT = Contract(
    pooling="mean", similarity="cosine", query_prompt="", document_prompt="", query_length=16,
    document_length=16,
)  # fmt: skip


@pytest.fixture
def stream(bert, pairs, tmp_path):
    """The second half of six steps, in two micro-batches, as the second of two ranks sees it."""
    tokenization = Tokenization(load_backbone(bert).tokenizer, CONTRACT)
    source = tokenize_source(open_source(SourceConfig(path=str(pairs))), tokenization, tmp_path)
    mixture = Mixture([len(source)], [1.0], batch_size=8, num_steps=6, seed=0)
    return BatchStream(mixture, BatchBuilder([source]), 3, 6, Cut(2, 1, 2))


def test_batches_of_other_processes_are_those_of_the_stream_in_its_order(stream):
    with built_ahead(stream, 2, 1) as fed:
        found = list(fed)
    wanted = list(stream)
    assert len(found) == len(wanted) == 6
    for one, other in zip(map(_tensors, found), map(_tensors, wanted), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_lost_process_is_said_and_a_signal_to_all_of_a_job_loses_none(stream, monkeypatch):
    started, start = [], subprocess.Popen

    def popen(*arguments, **settings):
        started.append(start(*arguments, **settings))
        return started[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    with built_ahead(stream, 1, 1) as fed:
        batches = iter(fed)
        next(batches)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(started[0].pid, number)
        next(batches)
        os.kill(started[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"^trainer\.workers lost one of the processes"):
            list(batches)
    assert started[0].poll() is not None


def test_a_cpu_builds_its_batches_itself_and_a_batch_of_the_step_is_never_built_ahead(
    stream, monkeypatch
):
    config = TrainerConfig(steps=1, accelerator="cpu")
    assert num_workers(config, stream) == 0
    assert num_workers(config.model_copy(update={"workers": 3}), stream) == 3
    late = LateStream(stream.mixture, lambda step: step, 0, 1)
    assert num_workers(config.model_copy(update={"workers": 3}), late) == 0
    monkeypatch.setattr(
        "embedtrain.training.ahead.preferred_device", lambda _: torch.device("cuda")
    )
    assert num_workers(config, stream) == 2
    with built_ahead(stream, 0, 1) as fed:
        assert fed is stream
