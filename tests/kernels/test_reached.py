"""Training reaches the kernels: ``backend: auto``, from the command line, in Triton's interpreter."""

import json

import pytest
import torch

pytest.importorskip("triton")
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.ops import choices
from embedtrain.ops.choices import Measured, keep
from embedtrain.ops.infonce import fused
from embedtrain.workflows.tuning import Shape, tune


@pytest.fixture(autouse=True)
def interpreted(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    for known in (choices._times, choices.announce):
        known.cache_clear()
    yield
    choices._times.cache_clear()


def test_auto_reaches_the_fused_loss_from_the_command_line(
    bert, pairs, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="embedtrain.ops.choices")
    cpu = torch.device("cpu")
    keep(cpu, [Measured("infonce", "fp32", 128, 1, fused_seconds=1.0, chunked_seconds=2.0)])
    computed = []
    plain = fused.infonce_fused
    monkeypatch.setattr(
        fused, "infonce_fused", lambda problem: computed.append(1) or plain(problem)
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "description": "Two steps.",
                "data": {"sources": [{"path": str(pairs)}], "num_negatives": 0},
                "model": {"kind": "dense", "backbone": bert},
                "objective": {"name": "info_nce"},
                "trainer": {"steps": 2, "batch_size": 4, "precision": "fp32"},
            }
        )
    )
    output = tmp_path / "run"
    arguments = ["train", str(recipe), "trainer.accelerator=cpu", "--output", str(output)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert len(computed) >= 2
    assert "infonce: backend auto is fused: measured on this machine" in caplog.messages


def test_what_is_measured_is_what_auto_takes(monkeypatch):
    shapes = [Shape("infonce", 4, 16), Shape("maxsim", 2, 16, 3, 4), Shape("infonce", 4, 24)]
    times = tune(torch.device("cpu"), shapes, [torch.float32])
    assert [(one.operation, one.dim) for one in times] == [("infonce", 16), ("maxsim", 16)]
    for one in times:
        faster = "fused" if one.fused_seconds < one.chunked_seconds else "chunked"
        found = choices.choose(one.operation, torch.device("cpu"), torch.float32, 16, one.scores)
        assert found == choices.Choice(faster, "measured on this machine")


def test_where_no_kernel_runs_nothing_is_kept(monkeypatch):
    with pytest.raises(UserError, match="no kernel that runs on this device; got 'interpreter'"):
        tune(torch.device("cpu"), [Shape("infonce", 4, 24)], [torch.float32])
    assert not (choices.default_cache() / choices.FILE).exists()


def test_without_a_device_one_line_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="times kernels on a CUDA device and there is none"):
        tune()
