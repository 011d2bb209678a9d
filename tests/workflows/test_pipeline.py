"""Stages in one file: each finds what the ones before it left, and none is done twice."""

import json
import signal
from pathlib import Path

import pytest
import torch
from forks import embedtrain, signal_on_call

from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.resources import resource
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows import stages as module
from embedtrain.workflows.pipeline import (
    RECIPE,
    Pipeline,
    dump_pipeline,
    load_pipeline,
    resume_pipeline,
    run_pipeline,
)

SMOKE = resource("recipes") / "smoke/mine_then_train.yaml"


@pytest.fixture(scope="module")
def overrides(bert, pairs, beir) -> list[str]:
    return [
        f"warm-up.model.backbone={bert}",
        f"hard.model.backbone={bert}",
        f"warm-up.data.sources=[{{path: {pairs}}}]",
        f"mined.data={beir}",
        f"scored.teacher={bert}",
        f"scores.path={beir}",
    ]


@pytest.fixture(scope="module")
def finished(overrides, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("staged") / "run"
    return run_pipeline(load_pipeline(SMOKE, overrides), output)


def outcome(run: Path) -> tuple[bytes, ...]:
    names = ("mined/train.jsonl", "scored/scored.jsonl", "hard/model/model.safetensors")
    return tuple((run / name).read_bytes() for name in names)


def test_every_stage_leaves_what_the_next_one_reads(finished):
    assert (finished / "warm-up/model/model.safetensors").is_file()
    manifest = json.loads((finished / "mined/manifest.json").read_text())
    assert manifest["outcome"]["num_negatives"] == 30
    assert json.loads((finished / "scores/scores.json").read_text())


def test_what_is_done_is_not_done_again(finished, monkeypatch):
    for name in ("train", "resume", "evaluate_tasks", "score"):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: pytest.fail(name))
    before = outcome(finished)
    assert resume_pipeline(finished) == finished
    assert outcome(finished) == before


def test_a_pipeline_killed_in_a_stage_goes_on_in_it(finished, overrides, tmp_path):
    done = embedtrain(
        ["train", SMOKE, *overrides, "--output", tmp_path / "run"],
        before=lambda: signal_on_call(RetrievalModule, "training_step", 7),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "run/hard/checkpoints").is_dir()
    assert not (tmp_path / "run/hard/model").exists()
    resume_pipeline(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(finished)


def test_another_pipeline_is_not_run_into_the_same_folder(finished, overrides):
    other = load_pipeline(SMOKE, [*overrides, "hard.trainer.steps=5"])
    with pytest.raises(UserError, match="holds another pipeline"):
        run_pipeline(other, finished)


def test_a_stage_merges_models_by_their_weights(finished, tmp_path):
    models = [str(finished / "hard/model"), str(finished / "warm-up/model")]
    work = {"models": models, "weights": [3.0, 1.0]}
    pipeline = {"description": "x", "stages": [{"name": "both", "merge": work}]}
    done = run_pipeline(Pipeline.model_validate(pipeline), tmp_path / "run")
    merged, *parts = (load_encoder(str(path)).state_dict() for path in (done / "both", *models))
    for name, value in merged.items():
        torch.testing.assert_close(value, 0.75 * parts[0][name] + 0.25 * parts[1][name])


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ({"models": ["a"]}, "linear goes between two models or more"),
        ({"models": ["a", "b", "c"], "method": "slerp"}, "slerp goes between two models"),
        ({"models": ["a", "b"], "method": "delta"}, "base is missing, which delta measures"),
        ({"models": ["a", "b"], "weights": [1.0]}, "weights must be one for each of the 2 models"),
        ({"models": ["a", "b"], "wieghts": [1.0]}, "wieghts"),
    ],
)
def test_a_merge_that_cannot_be_is_refused_before_any_stage_runs(work, message, tmp_path):
    pipeline = {"description": "x", "stages": [{"name": "both", "merge": work}]}
    (tmp_path / "p.yaml").write_text(json.dumps(pipeline))
    with pytest.raises(UserError, match=message):
        load_pipeline(tmp_path / "p.yaml")


def test_a_folder_from_before_a_setting_was_there_goes_on(tmp_path):
    rows = [json.dumps({"query": f"query {n}", "positive": f"text {n}"}) for n in range(120)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "p.yaml").write_text(
        f"{{description: x, stages: [{{name: data, hold_out: {{path: {tmp_path}/rows.jsonl}}}}]}}"
    )
    done = run_pipeline(load_pipeline(tmp_path / "p.yaml"), tmp_path / "run")
    mark = done / RECIPE
    text = mark.read_text()
    assert "by: answer" in text
    older = "".join(line for line in text.splitlines(keepends=True) if "by: answer" not in line)
    mark.write_text(older)
    assert run_pipeline(load_pipeline(tmp_path / "p.yaml"), done) == done
    assert mark.read_text() == older


def test_a_null_that_stands_against_a_default_is_kept(tmp_path):
    read_by_none = {"corpus": "c", "settings": {"round_trip": {"reader": None}}}
    stages = [{"name": "made", "synth": read_by_none}]
    asked = Pipeline.model_validate({"description": "Null.", "stages": stages})
    text = dump_pipeline(asked)
    (tmp_path / "pipeline.yaml").write_text(text)
    again = load_pipeline(tmp_path / "pipeline.yaml")
    assert again.stages[0].synth.settings.round_trip.reader is None
    assert dump_pipeline(again) == text


def test_a_mistake_in_a_late_stage_shows_before_the_first_one_runs(overrides, tmp_path):
    broken = load_pipeline(SMOKE, [*overrides, "hard.trainer.stepz=5"])
    with pytest.raises(UserError, match="stepz is an unknown key"):
        run_pipeline(broken, tmp_path / "run")
    assert not (tmp_path / "run/warm-up").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mined.model=stage:later/model", "refers to 'later', no earlier stage"),
        ("nowhere.trainer.steps=5", "names no stage"),
        ("mined.settings.depht=3", "is an unknown key. Did you mean depth"),
    ],
)
def test_mistakes_between_stages_are_named(change, message):
    with pytest.raises(UserError, match=message):
        load_pipeline(SMOKE, [change])
