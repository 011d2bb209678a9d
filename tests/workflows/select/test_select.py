"""`embedtrain select` and `trainer.blend`: what is measured, what is written, and never worse than the base."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.contract.stored import StoredOutputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_folder import RunFolder, load_checkpoint
from embedtrain.release.export import export
from embedtrain.training.measuring import list_weights
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline
from embedtrain.workflows.select import measured
from embedtrain.workflows.select.line import Point, mixed
from embedtrain.workflows.select.select import SelectWish, _later_first, select
from embedtrain.workflows.train import train


@pytest.fixture(scope="module")
def sections(bert, pairs, beir):
    return {
        "description": "toy",
        "data": {"sources": [{"path": str(pairs)}]},
        "model": {"backbone": bert, "query": {"length": 8}, "document": {"length": 16}},
        "trainer": {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
        "validation": {"path": str(beir), "split": "dev", "every_steps": 2, "keep": 2},
    }


@pytest.fixture(scope="module")
def run(sections, tmp_path_factory) -> RunFolder:
    return train(load_recipe(sections), tmp_path_factory.mktemp("select") / "run")


@pytest.fixture
def scripted(monkeypatch):
    """Let the score of a model be given by how far it is from the start, 0 to 1; say what was scored."""

    def script(start, trained, score):
        asked = []

        def judge(model, task, _):
            del task
            weights = model.state_dict()
            name = max(trained, key=lambda one: float((trained[one] - start[one]).abs().max()))
            place = (trained[name] - start[name]).abs().argmax()
            ends = [float(part[name].flatten()[place]) for part in (start, weights, trained)]
            alpha = round((ends[1] - ends[0]) / (ends[2] - ends[0]), 3)
            asked.append((alpha, model.contract.query_length))
            return {"ndcg_at_10": {str(n): score(alpha, n) for n in range(4)}}

        monkeypatch.setattr(measured, "score_task", judge)
        return asked

    return script


def weights_of(run):
    recipe = load_recipe(run.recipe)
    start = load_checkpoint(run, recipe, None).state_dict()
    return start, load_encoder(str(run.model)).state_dict()


def test_all_that_a_run_left_is_measured_and_the_best_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    found = select(SelectWish([run.path], errors=0.0), tmp_path / "out")
    names = [point.name for point in found.points]
    assert names[:4] == ["base, as it comes", "best", "last", "mean of 2 kept"]
    assert {0.0, 0.25, 0.5, 0.75, 1.0} <= {point.alpha for point in found.points}
    assert found.chosen.mean >= max(point.mean for point in found.points if point.alpha is not None)
    report = json.loads((tmp_path / "out/select.json").read_text())
    assert [point["name"] for point in report["points"]] == names
    assert report["chosen"]["name"] == found.chosen.name
    assert (tmp_path / "out/select.svg").read_text().startswith("<?xml")
    assert "embedtrain select" in (tmp_path / "out/README.md").read_text()
    kept = [path.name for path in list_weights(run.checkpoints)]
    assert kept == ["weights-00000004.ckpt", "weights-00000006.ckpt"]

    monkeypatch.setattr(measured, "score_task", None)  # what was scored is not scored again
    again = select(SelectWish([run.path], errors=0.0), tmp_path / "again")
    assert [point.scores for point in again.points] == [point.scores for point in found.points]


def test_the_chosen_point_of_the_line_is_what_is_written(run, tmp_path, monkeypatch, scripted):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    start, trained = weights_of(run)
    asked = scripted(
        start, trained, lambda alpha, n: {0.5: 0.9, 1.0: 0.8}.get(alpha, 0.2) - n / 100
    )

    def made_for_bits(path):
        model = load_encoder(path)
        if path == str(run.model):
            stored = StoredOutputs(quantize=("binary",), dims=(model.dim,))
            model.contract = model.contract.model_copy(update={"outputs": stored})
        return model

    monkeypatch.setattr("embedtrain.workflows.select.select.load_encoder", made_for_bits)
    wish = SelectWish([run.path], errors=0.0)
    found = select(wish, tmp_path / "out")
    assert found.chosen.alpha == 0.5
    assert (0.0, 8) in asked
    assert asked[0][1] == 64, "the base is measured under its own contract too"
    written = load_encoder(str(tmp_path / "out"))
    assert written.contract.query_length == 8
    assert written.contract.outputs is None, "the start was not made for bits"
    for name, weight in mixed(start, trained, 0.5).items():
        assert torch.allclose(weight, written.state_dict()[name]), name


def test_towards_the_end_what_trained_longer_is_taken_where_few_queries_cannot_tell(
    run, tmp_path, monkeypatch, scripted
):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    start, trained = weights_of(run)
    middle = [0.9, 0.5, 0.7, 0.6]
    end = [0.6, 0.7, 0.6, 0.7]  # 0.025 less, with an error of 0.11
    found = {1.0: end, 0.5: middle}
    scripted(start, trained, lambda alpha, n: found.get(alpha, [0.1] * 4)[n])
    early = select(SelectWish([run.path]), tmp_path / "early")
    late = select(SelectWish([run.path], toward="end"), tmp_path / "late")
    assert (early.chosen.alpha, late.chosen.alpha) == (0.5, 1.0)
    assert json.loads((tmp_path / "late/select.json").read_text())["toward"] == "end"


def test_the_last_step_comes_before_the_best_one():
    ends = [
        Point("a: best", [0.9]), Point("a: last", [0.7]), Point("b: last", [0.8]), Point("mean of 2 runs", [0.6]),
    ]  # fmt: skip
    order = ["b: last", "a: last", "a: best", "mean of 2 runs"]
    assert [one.name for one in _later_first(ends)] == order


def test_nothing_that_is_worse_than_the_base_is_written(run, bert, tmp_path, monkeypatch, scripted):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    calls = []

    def worse(alpha, _):
        calls.append(alpha)
        return 0.9 if len(calls) <= 4 else 0.5 - alpha / 10

    scripted(*weights_of(run), worse)
    found = select(SelectWish([run.path]), tmp_path / "out")
    assert found.chosen.name == "base, as it comes"
    ours, theirs = load_encoder(str(tmp_path / "out")), load_encoder(bert)
    assert ours.contract == theirs.contract
    vectors = [encode_texts(one, ["the red cat"], "query") for one in (ours, theirs)]
    assert (vectors[0] == vectors[1]).all()
    assert "as it came" in json.loads((tmp_path / "out/select.json").read_text())["sentence"]


def test_guards_are_compared_with_the_base_and_runs_are_averaged(
    run, sections, beir, sts_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    other = train(load_recipe(sections, ["trainer.seed=1", "trainer.steps=2"]), tmp_path / "seed1")
    guard = [str(sts_file)]
    wish = SelectWish([run.path, other.path], data=str(beir), guard=guard)
    done = CliRunner().invoke(
        app,
        ["select", str(run.path), str(other.path), "--data", str(beir), "--guard", guard[0],
         "--output", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    found = select(wish, tmp_path / "again")
    assert "mean of 2 runs" in [point.name for point in found.points]
    assert "mean of 2 runs" in done.stdout
    for point in found.points[1:]:
        assert len(point.guards) == 1
    assert found.points[0].guards == {}


def test_a_stage_selects(run, tmp_path):
    path = tmp_path / "two.yaml"
    stages = [{"name": "chosen", "select": {"runs": [str(run.path)], "errors": 0.0}}]
    path.write_text(yaml.safe_dump({"description": "toy", "stages": stages}))
    run_pipeline(load_pipeline(path), tmp_path / "out")
    assert load_encoder(str(tmp_path / "out/chosen")).contract.query_length == 8
    written = (tmp_path / "out/chosen/select.json").stat().st_mtime_ns
    run_pipeline(load_pipeline(path), tmp_path / "out")
    assert (tmp_path / "out/chosen/select.json").stat().st_mtime_ns == written


def test_mistakes_are_one_line(run, beir, pairs, tmp_path, sections):
    blind = {key: value for key, value in sections.items() if key != "validation"}
    blind["trainer"] = sections["trainer"] | {"steps": 1}
    unseen = train(load_recipe(blind), tmp_path / "blind")
    for wish, message in [
        (SelectWish([tmp_path]), "is not a run folder"),
        (SelectWish([unseen.path]), "--data is missing, and the run validated on nothing"),
        (SelectWish([run.path], data=str(beir), split="none"), "none"),
        (SelectWish([run.path], errors=-1.0), "--errors must be between"),
        (
            SelectWish([run.path], guard=[str(beir)], guard_split="dev"),
            "names the data that decide",
        ),
        (SelectWish([run.path], base="no/where"), "no/where"),
    ]:
        with pytest.raises(UserError, match=message):
            select(wish, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("asked", [0.25, "auto"])
def test_a_recipe_can_ask_for_a_blend(sections, tmp_path, monkeypatch, scripted, asked, capsys):
    plain = train(load_recipe(sections), tmp_path / "plain")
    start, trained = weights_of(plain)
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    changes = [f"trainer.blend={asked}", f"data.cache={tmp_path / 'cache'}"]
    # At 0 it is worse by less than a standard error: the best is taken all the same.
    scripted(start, trained, lambda alpha, n: 1 - (alpha - 0.25) ** 2 + (-1) ** n * alpha / 2)
    run = train(load_recipe(sections, changes), tmp_path / "run")
    expected = mixed(start, trained, 0.25)
    again = export(run.path, tmp_path / "exported")
    for folder in (run.model, again):
        for name, weight in load_encoder(str(folder)).state_dict().items():
            assert torch.allclose(weight, expected[name], atol=1e-6), name
    assert json.loads(run.summary.read_text())["blend"] == 0.25
    said = " ".join(capsys.readouterr().err.split())
    assert ("trainer.blend: auto takes 0.25" in said) == (asked == "auto")


def test_a_blend_by_validation_needs_one(sections):
    content = {key: value for key, value in sections.items() if key != "validation"}
    with pytest.raises(UserError, match=r"trainer\.blend: auto chooses by validation"):
        load_recipe(content, ["trainer.blend=auto"])


@pytest.fixture
def sts_file(tmp_path, sentences) -> Path:
    rows = [
        {"sentence1": sentences[n], "sentence2": sentences[n // 2 + 20], "score": n / 20}
        for n in range(20)
    ]
    path = tmp_path / "sts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
