"""`embedtrain tune` on a toy: a budget is kept, the winner is a recipe that repeats, and mistakes come first."""

import json
from pathlib import Path

import pytest

from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.locks import lock_of
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.train import train
from embedtrain.workflows.tune import finish, work
from embedtrain.workflows.tune.report import NOTHING
from embedtrain.workflows.tune.tune import tune

pytest.importorskip("optuna")


@pytest.fixture
def sections(bert, pairs, beir, tmp_path):
    space = [{"key": "trainer.learning_rate", "low": 1e-4, "high": 1e-2, "log": True}]
    return {
        "description": "toy",
        "data": {"sources": [{"path": str(pairs)}], "cache": str(tmp_path / "cache")},
        "model": {"backbone": bert, "query": {"length": 8}, "document": {"length": 16}},
        "trainer": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"},
        "validation": {"path": str(beir), "split": "dev"},
        "evaluation": {"path": str(beir), "split": "test"},
        "tune": {"space": space},
    }


class Ticks:
    """A clock that goes on by a second each time a trial ends."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.trained = []
        original = work.train

        def timed(recipe, folder):
            self.trained.append((folder.name, recipe))
            run = original(recipe, folder)
            self.now += 1.0
            return run

        monkeypatch.setattr(work, "train", timed)

    def __call__(self):
        return self.now


@pytest.fixture
def scripted(monkeypatch):
    """Trials that take no time: a model is its rate and seed, and each of four queries scores by these."""
    trained = []

    def train(recipe, folder):
        run = RunFolder(folder)
        run.model.mkdir(parents=True)
        trainer = recipe.trainer
        trained.append((folder.name, trainer.learning_rate, trainer.seed))
        (run.model / "toy").write_text(json.dumps([trainer.learning_rate, trainer.seed]))
        clock.now += 1
        return run

    def decides(judge, model):
        if not isinstance(model, list):
            return [0.2] * 4
        rate, seed = model
        return [clock.score(rate, seed) - query / 1000 for query in range(4)]

    class Clock:
        now = 0.0
        names = property(lambda self: [name for name, _, _ in trained])
        rates = property(lambda self: [rate for _, rate, _ in trained])

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(work, "train", train)
    monkeypatch.setattr(Judge, "decides", decides)
    for module in (work, finish):
        monkeypatch.setattr(module, "load_encoder", read)
    return clock


def read(path):
    return json.loads((Path(path) / "toy").read_text())


def test_a_search_leaves_the_best_as_a_recipe_and_goes_on(sections, tmp_path, scripted):
    scripted.score = lambda rate, seed: 0.9 - abs(rate - 2.9e-3)
    asked = load_recipe(sections)
    found = tune(asked, tmp_path / "out", 14.0, clock=scripted)
    assert scripted.names[:3] == ["trial-000", "trial-001", "trial-002"]
    assert scripted.rates[:3] == pytest.approx([1e-3, 1e-3 / 3, 3e-3])
    assert any("-seed-1" in name for name in scripted.names)
    assert "trial-000-seed-1" in scripted.names, "the recipe too, though others are better"
    assert scripted.now <= 14
    report = json.loads((tmp_path / "out/tune.json").read_text())
    assert report["winner"] == found.winner.number
    assert any("which chose nothing" in line for line in report["sentences"])
    assert (tmp_path / "out/tune.svg").is_file()
    best = load_recipe(tmp_path / "out/best.yaml")
    assert best.tune is None
    assert best.trainer.learning_rate == found.winner.settings["trainer.learning_rate"]
    assert best.evaluation == asked.evaluation.model_copy(update={"precision": "fp32"})

    before = len(scripted.names)
    more = tune(asked, tmp_path / "out", 8.0, clock=scripted)
    assert len(more.trials) > len(found.trials)
    assert "trial-000" not in scripted.names[before:]


def test_a_search_that_finds_nothing_leaves_the_recipe(sections, tmp_path, scripted):
    """One other rate is lucky with the first seed, and with the others the recipe is better."""
    scripted.score = lambda rate, seed: 0.9 if rate == 3e-3 and seed == 0 else 0.5 + (rate == 1e-3)
    sections["trainer"]["seed"] = 0
    found = tune(load_recipe(sections), tmp_path / "out", 16.0, clock=scripted)
    assert found.winner.settings == {}
    assert NOTHING in found.lines
    best = load_recipe(tmp_path / "out/best.yaml")
    assert best.trainer.learning_rate == 1e-3


def test_a_stop_in_the_first_trial_keeps_the_yardstick(sections, tmp_path, scripted, monkeypatch):
    scripted.score = lambda rate, seed: rate

    def stopped(recipe, folder):
        folder.mkdir()
        lock_of(folder).touch()  # a killed process's own
        raise KeyboardInterrupt

    trains = work.train
    monkeypatch.setattr(work, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(load_recipe(sections), tmp_path / "out", 14.0, clock=scripted)
    monkeypatch.setattr(work, "train", trains)
    tune(load_recipe(sections), tmp_path / "out", 14.0, clock=scripted)
    assert not (tmp_path / "out/trial-000").exists()
    assert not list((tmp_path / "out").glob(".trial*")), "what the kill left is gone"
    assert scripted.names[:2] == ["trial-001", "trial-002"]
    assert scripted.rates[0] == 1e-3
    assert "trial-001-seed-1" in scripted.names
    assert (tmp_path / "out/trial-001/model").is_dir()


def test_a_trial_is_a_run_and_its_recipe_repeats_it(sections, tmp_path, monkeypatch):
    """In earnest, the recipe's own trial; the search around it is scripted above."""
    found = tune(load_recipe(sections), tmp_path / "out", 1.5, clock=Ticks(monkeypatch))
    assert found.winner.settings == {}
    best = load_recipe(tmp_path / "out/best.yaml", ["evaluation=null"])
    run = train(best, tmp_path / "again")
    first = load_encoder(str(tmp_path / "out/trial-000/model"))
    assert model_key(load_encoder(str(run.model))) == model_key(first)


@pytest.mark.prove
def test_a_search_in_earnest_leaves_a_recipe_that_repeats_its_winner(
    sections, tmp_path, monkeypatch
):
    clock = Ticks(monkeypatch)
    found = tune(load_recipe(sections), tmp_path / "out", 12.0, clock=clock)
    assert len([one for one in found.trials if one.score is not None]) > 2
    assert any("-seed-1" in name for name, _ in clock.trained)
    best = load_recipe(tmp_path / "out/best.yaml", ["evaluation=null"])
    run = train(best, tmp_path / "again")
    first = load_encoder(str(tmp_path / f"out/trial-{found.winner.number:03d}/model"))
    assert model_key(load_encoder(str(run.model))) == model_key(first)


def test_no_time_for_a_trial_leaves_the_recipe(sections, tmp_path):
    found = tune(load_recipe(sections), tmp_path / "out", 1e-9)
    assert found.winner is None
    assert "recipe as it is" in found.lines[0]
    assert load_recipe(tmp_path / "out/best.yaml").trainer.learning_rate == 1e-3


def test_mistakes_come_before_the_first_trial(sections, tmp_path):
    def space(**key):
        unread = {"sources": [{"path": "not-there.jsonl"}]}  # the space is looked at first
        return sections | {"data": unread, "tune": {"space": [key]}}

    blind = {key: value for key, value in sections.items() if key != "validation"}
    for content, message in [
        (blind, "trials are compared by it"),
        (space(key="trainer.learning_rat", low=1e-5, high=1e-3), "Did you mean learning_rate"),
        (space(key="trainer.schedule", choices=["linear", "cubic"]), "cubic"),
    ]:
        with pytest.raises(UserError, match=message):
            tune(load_recipe(content), tmp_path / "out", 10.0)
        assert not (tmp_path / "out").exists()


def test_another_recipe_does_not_go_on_in_the_folder(sections, tmp_path):
    tune(load_recipe(sections), tmp_path / "out", 1e-9)
    with pytest.raises(UserError, match="holds the search of another recipe"):
        tune(load_recipe(sections, ["trainer.steps=5"]), tmp_path / "out", 10.0)
