import json

import pytest
import torch
from objective_toys import number, outputs_of_pairs
from pair_toys import marked_rows, save_classifier
from safetensors.torch import load_file, save_file

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.pair_figures import LONG, SameScores, pair_figures
from embedtrain.workflows.train import train


def test_a_model_that_tells_nothing_apart_costs_the_logarithm_of_the_group_and_shows_no_spread():
    outputs = outputs_of_pairs([3.0] * 8, None)
    assert number(InfoNCE().for_pairs()(outputs).loss) == pytest.approx(2.079442, abs=1e-6)
    assert float(pair_figures(outputs)["score_std"]) == 0


def test_it_is_told_once_and_only_after_long():
    same = SameScores()
    told = [step for step in range(0, 3 * LONG, 10) if same.seen(0.001, step)]
    assert told == [LONG]
    same = SameScores()
    spreads = [0.001 if step % LONG else 0.5 for step in range(0, 3 * LONG, 10)]
    assert not any(same.seen(spread, 10 * place) for place, spread in enumerate(spreads))


@pytest.mark.usefixtures("quick_exports")
@pytest.mark.parametrize("dead", [True, False])
def test_training_says_so(dead, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("embedtrain.training.pair_figures.LONG", 2)
    start = save_classifier(tmp_path / "start", "bert")
    weights = load_file(start / "model.safetensors")
    if dead:
        weights["classifier.weight"] = torch.zeros_like(weights["classifier.weight"])
    save_file(weights, start / "model.safetensors", {"format": "pt"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in marked_rows(40, 0)))
    recipe = {
        "data": {"sources": [{"path": str(rows)}]},
        "model": {"kind": "cross_encoder", "backbone": str(start)},
        "trainer": {"steps": 5, "batch_size": 8, "learning_rate": 1e-9, "log_every": 1},
    }
    train(load_recipe(recipe), tmp_path / "run")
    assert capsys.readouterr().err.count("scored all documents of a query alike") == dead
