"""Processes that answer questions: none is left behind."""

import subprocess

import pytest

from embedtrain import workers as workers_module
from embedtrain.workers import workers


def test_where_one_cannot_be_started_those_that_were_are_ended(monkeypatch):
    started, start = [], subprocess.Popen

    def popen(command, **settings):
        if len(started) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(start(["sleep", "60"], **settings))
        return started[-1]

    monkeypatch.setattr(workers_module.subprocess, "Popen", popen)
    with pytest.raises(BlockingIOError), workers("a.module", 4, "the work"):
        pass
    assert [process.returncode for process in started] == [-9, -9]
