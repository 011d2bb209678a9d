"""What a plan makes of pairs: what of them is held out, and what they are searched among."""

import json

import pytest
from fit_plans import plan, stages_of, wish

from embedtrain.workflows.fit.compose import compose
from embedtrain.workflows.fit.look import Speed
from embedtrain.workflows.fit.plan import SAFE
from embedtrain.workflows.hold_out import hold_out_rows


def test_measuring_is_as_thorough_as_what_training_leaves():
    """Where all steps that the data takes are paid for, the rest of the time is for measuring on more."""
    slow = Speed(2.5e-4, 240.0, 22.0, 22_000_000)  # fifty documents a second
    found = [plan(budget, 10_000, 700, slow) for budget in (180.0, 200.0, 250.0)]
    assert not any(one.cut for one in found)
    assert all(one.total <= SAFE * one.budget for one in found)
    assert [one.searched for one in found] == [500, 1_000, 2_000]
    # More than half of the time is around training, which could not take any more of it.
    around = sum(found[2].seconds.values()) - found[2].steps["plain"] * found[2].seconds_per_step
    assert around > SAFE * 250 / 2


def test_a_corpus_beside_pairs_is_read_and_searched():
    asked = wish(corpus="docs", pairs="p.jsonl", model="base")
    stages = stages_of(asked, plan(rows=5_000))
    assert stages["data"].hold_out.corpus == "docs"
    assert stages["data"].hold_out.base == "base"
    assert stages["data"].hold_out.by == "query"
    assert stages["gate"].gate.others == stages["plain"].train["validation"]["others"] == "bm25"


def test_few_pairs_choose_nothing_and_train_instead():
    """Of 900 pairs sixty would choose, by chance; of 3,000 three hundred can."""
    few, many = plan(rows=900), plan(rows=3_000)
    assert list(few.steps) == ["plain"]
    assert [one.validates for one in (few, many)] == [False, True]
    assert [one.chooses for one in (few, many)] == [False, True]
    assert plan(rows=900, human=40).chooses
    assert plan(rows=900, guards=(500,)).chooses
    assert plan(rows=900, pair_seconds=0.02).chooses
    stages = stages_of(wish(pairs="p"), few)
    assert list(stages) == ["data", "plain", "gate"]
    assert stages["data"].hold_out.dev == 0
    assert "validation" not in stages["plain"].train
    assert stages["gate"].gate.model == "stage:plain/model"


@pytest.mark.parametrize("rows", [50, 60, 76, 100, 500, 5_000])
def test_of_few_pairs_enough_are_held_out(rows, tmp_path):
    found = plan(rows=rows)
    stage = {one.name: one for one in compose(wish(pairs="p"), found).stages}["data"].hold_out
    lines = [json.dumps({"query": f"query {n}", "positive": f"text {n}"}) for n in range(rows)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    work = stage.model_copy(update={"path": str(tmp_path / "p.jsonl")})
    data = hold_out_rows(work, tmp_path / "data")
    asked = json.loads((data / "report.json").read_text())["queries"]
    assert min(asked.values()) >= 10
    assert asked["train"] >= rows / 2
