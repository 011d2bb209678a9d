"""The plan fits into the budget, and what cannot work is refused before anything runs."""

import pytest
from fit_plans import SPEED, plan, stages_of, wish

from embedtrain.cli.printing_fit import print_plan
from embedtrain.errors import UserError
from embedtrain.workflows.fit.compose import compose
from embedtrain.workflows.fit.look import Speed
from embedtrain.workflows.fit.plan import SAFE
from embedtrain.workflows.fit.report_data import _divided
from embedtrain.workflows.fit.wish import read_duration, refuse_other_wish


@pytest.mark.parametrize("rows", [0, 200, 5_000, 100_000])
@pytest.mark.parametrize("minutes", [8, 30, 120])
def test_what_is_planned_fits_into_the_budget(rows, minutes):
    found = plan(minutes * 60.0, rows=rows, documents=max(rows, 1_000))
    assert found.total <= SAFE * found.budget + 1
    assert min(found.steps.values()) >= 1


def test_a_small_budget_gives_up_the_second_trial_and_then_steps():
    assert set(plan().steps) == {"plain", "guided", "hard"}
    small = plan(50.0)
    assert set(small.steps) == {"plain"}
    assert small.cut
    assert "mined" not in small.seconds
    assert small.steps["plain"] < plan().steps["plain"]


def test_a_short_budget_shrinks_what_is_measured_on_rather_than_refuse():
    slow = Speed(1e-3, 240.0, 22.0, 22_000_000)  # 4,000 chunks take 320 s to encode
    found = plan(900.0, documents=4_000, rows=0, speed=slow)
    assert found.total <= SAFE * 900
    assert found.searched == 500
    assert found.steps["plain"] >= 10
    gate = {one.name: one for one in compose(wish(corpus="c"), found).stages}["gate"].gate
    assert gate.num_documents == found.searched
    assert plan(documents=4_000, rows=0).searched is None


def test_a_budget_too_short_to_choose_lets_all_that_is_held_out_decide(capsys):
    slow = Speed(1e-3, 240.0, 22.0, 22_000_000)
    found = plan(300.0, 400, 512, slow)
    longer = plan(
        3_000.0, 400, 512, slow, guards=(400,)
    )  # which every share of the way is measured on
    assert (found.validates, longer.validates) == (False, True)
    short, long = (
        {one.name: one for one in compose(wish(pairs="p"), each).stages} for each in (found, longer)
    )
    shares = short["data"].hold_out, long["data"].hold_out
    assert (shares[0].dev, shares[0].test) == (0, shares[1].test)
    assert (shares[1].dev, shares[1].test) == (0.117, 0.234)  # 60 and 120 of 512
    assert "validation" not in short["plain"].train
    assert "validation" in long["plain"].train
    assert short["gate"].gate.model == "stage:plain/model"
    people = compose(wish(pairs="p", queries="q"), found.model_copy(update={"human": 200})).stages
    assert not next(one for one in people if one.divide is not None).divide.chooses
    print_plan(found)
    assert "23% of the pairs decide about the model" in " ".join(capsys.readouterr().out.split())
    queries = {"train": 392, "test": 120}
    said = _divided({"rows": 392, "queries": queries, "documents": 400})
    assert "train; 120 queries decide. None of their answers trains." in said
    said = _divided({"rows": 392, "queries": queries, "documents": 400, "by": "query"})
    assert "may have trained with other queries" in said


def test_too_slow_a_machine_gets_smaller_batches():
    found = plan(900.0, documents=4_000, rows=0, speed=Speed(4e-3, 240.0, 22.0, 22_000_000))
    assert found.halved
    stages = {one.name: one for one in compose(wish(corpus="c"), found).stages}
    assert stages["plain"].train["trainer"]["batch_size"] == found.batch_size < 64


def test_each_trial_has_its_own_most_steps():
    for budget in range(60, 400, 20):
        found = plan(float(budget))
        trained = [one.train for one in compose(wish(pairs="p"), found).stages if one.train]
        assert [one["trainer"]["max_steps"] for one in trained] == list(found.steps.values())
        assert found.cut == (min(found.steps.values()) < 200 or found.halved)


def test_a_budget_without_a_step_is_refused_with_what_would_do():
    with pytest.raises(UserError, match=r"--budget does not suffice for one step.*Give about \d+m"):
        plan(20.0)


def test_a_language_model_and_guards_take_their_part_of_the_time():
    assert plan(rows=0, has_llm=True).seconds["data"] > 0.4 * 1800
    assert plan(guards=(5_000,)).seconds["gate"] > plan().seconds["gate"]


def test_the_stages_are_an_ordinary_pipeline():
    stages = {one.name: one for one in compose(wish(pairs="p.jsonl"), plan()).stages}
    assert list(stages)[:2] == ["data", "mined"]
    assert list(stages)[-1] == "gate"
    assert not stages["gate"].gate.synthetic
    limit = {"max_seconds": plan().limit("plain")}
    assert stages["plain"].train["trainer"] == {"auto": True, "max_steps": 200, **limit}
    assert stages["hard"].train["data"]["sources"] == [{"path": "stage:mined/train.jsonl"}]
    cut = compose(wish(pairs="p.jsonl"), plan(50.0)).stages
    assert cut[1].train["trainer"]["max_steps"] == plan(50.0).steps["plain"]


def test_the_limits_of_trials_use_up_the_budget_and_no_more():
    found = plan()
    around = found.total - sum(found.seconds[name] - 15 for name in found.steps)
    limits = found.guiding + sum(map(found.limit, found.steps))
    assert around + limits == pytest.approx(found.budget, abs=1)
    before = {name: 15 + found.guiding * (name == "guided") for name in found.steps}
    assert all(found.limit(name) > found.seconds[name] - before[name] for name in found.steps)


def test_a_reranker_has_trials_where_they_take_no_step_from_the_others():
    asked = wish(pairs="p.jsonl", reranker="judge")
    found = plan(3600.0, pair_seconds=0.02)
    assert found.reranks
    assert list(found.steps) == ["plain", "guided", "hard", "cleaned", "taught"]
    assert set(found.steps.values()) == {200}
    assert found.seconds["judged"] == pytest.approx(5 + 10 * found.rows * 0.02)
    stages = stages_of(asked, found)
    assert list(stages) == list(found.seconds)
    assert stages["judged"].judge.settings.judge.model == "judge"
    assert not stages["judged"].judge.settings.written
    assert stages["cleaned"].train["data"]["sources"] == [{"path": "stage:judged/train.jsonl"}]
    assert stages["taught"].train["objective"]["name"] == "kl_distillation"
    assert stages["choice"].select.runs == tuple(f"stage:{name}" for name in found.steps)
    assert stages["mined"].mine.settings.num_rejected == stages["judged"].judge.settings.depth
    without = plan(400.0, pair_seconds=0.02)
    assert (without.reranks, list(without.steps)) == (False, ["plain", "guided", "hard"])
    assert plan(400.0).steps == without.steps
    assert plan().reranks is None


def test_a_guided_trial_takes_no_step_from_the_others_and_its_guide_is_the_start():
    for budget in range(400, 2000, 40):
        for documents in (500, 4_000, 20_000):
            found = plan(float(budget), documents, 0)
            if "guided" not in found.steps:
                continue
            assert found.steps["guided"] == found.steps["plain"] == found.steps["hard"]
            assert not found.cut
            assert found.total <= SAFE * budget + 1
    assert "guided" not in plan(400.0, 20_000, 0).steps
    found = plan()
    train = stages_of(wish(pairs="p.jsonl"), found)["guided"].train
    assert (train["objective"], train["guide"]) == ({"name": "gist"}, {"model": "base"})
    assert train["data"]["sources"] == [{"path": "stage:data/train.jsonl"}]
    encoded = found.rows * (SPEED.document_tokens + SPEED.query_tokens) * SPEED.seconds_per_token
    assert found.guiding == pytest.approx(encoded / 3, abs=0.1)
    longer = found.seconds["guided"] - found.seconds["plain"]
    assert longer == pytest.approx(found.guiding, abs=0.2)


def test_a_reranker_is_not_paid_for_with_queries_that_are_never_made():
    for budget in (1800.0, 3600.0):
        for documents in (2_000, 10_000, 50_000):
            for pair in (1e-4, 1e-3, 1e-2):
                usual = plan(budget, documents, 0)
                found = plan(budget, documents, 0, pair_seconds=pair)
                assert found.queries == usual.queries
                # Trials that nobody asked for give way to those of a reranker that was given.
                own = {name: steps for name, steps in usual.steps.items() if name != "guided"}
                assert all(found.steps[name] >= number for name, number in own.items())
    assert plan(3600.0, 10_000, 0, pair_seconds=1e-4).reranks


def test_human_queries_choose_and_decide_and_synthetic_ones_stand_beside():
    stages = stages_of(wish(corpus="c", queries="q"), plan(rows=0, human=40))
    assert stages["plain"].train["validation"]["path"] == "stage:human"
    gate = stages["gate"].gate
    assert (gate.path, gate.synthetic) == ("stage:human", False)
    assert [(one.path, one.synthetic) for one in gate.also] == [("stage:data", True)]
    mining = stages["mined"].mine.settings
    assert [one.path for one in (mining.guard, *mining.guards)] == ["stage:human", "stage:data"]
    alone = stages_of(wish(corpus="c"), plan(rows=0))
    assert alone["gate"].gate.synthetic
    assert alone["plain"].train["trainer"]["auto"] == "synthetic"
    assert alone["mined"].mine.settings.guards == ()
    assert "human" not in alone


def test_few_human_queries_are_measured_besides():
    stages = stages_of(wish(corpus="c", queries="q"), plan(rows=0, human=15))
    assert stages["plain"].train["validation"]["path"] == "stage:data"
    gate = stages["gate"].gate
    assert (gate.path, gate.synthetic) == ("stage:data", True)
    assert [(one.path, one.synthetic) for one in gate.also] == [("stage:human", False)]
    assert not stages["human"].divide.chooses


def test_guards_choose_and_report_by_different_queries():
    stages = stages_of(wish(pairs="p", guards=("a/SciFact_2",)), plan(guards=(5_000,)))
    name = "guard-1-scifact-2"
    assert stages[name].divide.path == "a/SciFact_2"
    assert (stages["choice"].select.guard, stages["choice"].select.guard_split) == (
        (f"stage:{name}",),
        "dev",
    )
    assert [(one.path, one.split) for one in stages["gate"].gate.guards] == [
        (f"stage:{name}", "test")
    ]


@pytest.mark.parametrize(
    ("words", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5 h", 5400), ("10", 600)]
)
def test_durations(words, seconds):
    assert read_duration(words) == seconds


@pytest.mark.parametrize("words", ["", "0m", "soon", "-3m", "3d"])
def test_other_durations_are_refused(words):
    with pytest.raises(UserError, match="is no length of time"):
        read_duration(words)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "CORPUS is missing"),
        ({"corpus": "/nowhere"}, "CORPUS does not exist"),
        ({"corpus": ".", "queries": "/nowhere"}, "--queries does not exist"),
        ({"pairs": "p.jsonl", "llm": "http://localhost/v1"}, "there are none"),
        ({"corpus": ".", "llm": "https://me:hidden1@host/v1"}, "holds a key"),
        ({"corpus": ".", "llm": "https://host/v1?x=hidden1"}, "holds a key or a query"),
        ({"corpus": ".", "llm": "https://host/v1#x?k=hidden1"}, "EMBEDTRAIN_API_KEY"),
        (
            {"corpus": ".", "pairs": "p.jsonl", "llm": "http://localhost/v1"},
            "--llm writes no queries where --pairs gives them",
        ),
    ],
)
def test_words_that_cannot_work_are_refused(given, message):
    with pytest.raises(UserError, match=message) as refused:
        wish(**given).check()
    assert "hidden1" not in str(refused.value)


def test_other_words_do_not_go_on_with_a_folder(tmp_path):
    known = wish(pairs="p.jsonl")
    refuse_other_wish(known, known, tmp_path)
    message = r"begun with --pairs p.jsonl, and this is with --pairs q.jsonl"
    with pytest.raises(UserError, match=message):
        refuse_other_wish(wish(pairs="q.jsonl"), known, tmp_path)
    with pytest.raises(UserError, match="begun without --queries, and this is with --queries q"):
        refuse_other_wish(wish(pairs="p.jsonl", queries="q"), known, tmp_path)


def test_a_model_named_behind_an_address_is_allowed():
    wish(corpus=".", llm="https://host/v1#toy").check()
