"""`embedtrain tune` on a toy: a budget is kept, the winner is a recipe that repeats, and mistakes come first."""

import json

import pytest

from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.train import train
from embedtrain.workflows.tune import tune as workflow
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
        original = workflow.train

        def timed(recipe, folder):
            self.trained.append((folder.name, recipe))
            run = original(recipe, folder)
            self.now += 1.0
            return run

        monkeypatch.setattr(workflow, "train", timed)

    def __call__(self):
        return self.now


def test_a_search_leaves_a_recipe_that_repeats_its_winner(sections, tmp_path, monkeypatch):
    clock = Ticks(monkeypatch)
    asked = load_recipe(sections)
    found = tune(asked, tmp_path / "out", 10.0, clock=clock)
    names = [name for name, _ in clock.trained]
    assert names[:3] == ["trial-000", "trial-001", "trial-002"]
    assert any("-seed-1" in name for name in names)
    rates = [recipe.trainer.learning_rate for _, recipe in clock.trained[:3]]
    assert rates == pytest.approx([1e-3, 1e-3 / 3, 3e-3])
    assert clock.now <= 10
    report = json.loads((tmp_path / "out/tune.json").read_text())
    assert report["winner"] == found.winner.number
    assert any("which chose nothing" in line for line in report["sentences"])
    assert (tmp_path / "out/tune.svg").is_file()

    best = load_recipe(tmp_path / "out/best.yaml")
    assert best.tune is None
    assert best.evaluation == asked.evaluation.model_copy(update={"precision": "fp32"})
    run = train(load_recipe(best, ["evaluation=null"]), tmp_path / "again")
    first = load_encoder(str(tmp_path / f"out/trial-{found.winner.number:03d}/model"))
    assert model_key(load_encoder(str(run.model))) == model_key(first)

    before = len(clock.trained)
    more = tune(asked, tmp_path / "out", 4.0, clock=clock)  # it goes on
    assert len(more.trials) > len([one for one in found.trials if one.state == "done"])
    again = [name for name, _ in clock.trained[before:]]
    assert "trial-000" not in again


def test_no_time_for_a_trial_leaves_the_recipe(sections, tmp_path):
    found = tune(load_recipe(sections), tmp_path / "out", 1e-9)
    assert found.winner is None
    assert "recipe as it is" in found.lines[0]
    assert load_recipe(tmp_path / "out/best.yaml").trainer.learning_rate == 1e-3


def test_mistakes_come_before_the_first_trial(sections, tmp_path):
    def space(**key):
        return sections | {"tune": {"space": [key]}}

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
