"""The search itself, on stub objectives: it finds, prunes, survives a kill and shares a folder."""

import math

import pytest

from embedtrain.errors import UserError
from embedtrain.training.search_space import SearchedKey
from embedtrain.workflows.tune.study import Study, TooLongError, best_trials, recipe_as_it_is

pytest.importorskip("optuna")
SPACE = (
    SearchedKey(key="trainer.learning_rate", low=1e-6, high=1e-2, log=True),
    SearchedKey(key="objective.directions", choices=(["a"], ["a", "b"])),
)
FIRST = [{}, {"trainer.learning_rate": 0.5}]


def score(settings):
    """A parabola with its top at 1e-4 and both directions."""
    rate = settings.get("trainer.learning_rate", 1e-6)
    return 1 - (math.log10(rate) + 4) ** 2 / 10 + len(settings.get("objective.directions", ())) / 10


def stub(number, settings, report):
    del number, report
    return score(settings)


def run(folder, count, evaluate=stub, first=FIRST):
    folder.mkdir(exist_ok=True)
    study = Study(folder, SPACE, 0)
    study.begin(first)
    for _ in range(count):
        study.run_one(evaluate, lambda: 0.0)
    return study.trials()


def test_a_parabola_is_climbed_within_thirty_trials(tmp_path):
    trials = run(tmp_path / "study", 30)
    assert trials[0].settings == {}
    assert trials[1].settings == FIRST[1], "as planned, outside of the space"
    best = best_trials(trials, 1)[0]
    assert best.score > 1.15
    assert best.settings["objective.directions"] == ["a", "b"]
    assert run(tmp_path / "again", 30) == trials, "the same seed tries the same"


def test_a_killed_trial_is_done_again_and_the_others_stay(tmp_path):
    seen = []

    def dies(number, settings, report):
        seen.append(settings)
        if number == 4:
            raise KeyboardInterrupt
        return stub(number, settings, report)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "study", 6, dies)
    trials = run(tmp_path / "study", 2)
    done = [trial for trial in trials if trial.state == "done"]
    assert [trial.settings for trial in done[:5]] == seen
    assert [trial.score for trial in done[:4]] == [score(settings) for settings in seen[:4]]
    assert [trial.state for trial in trials] == ["done"] * 4 + ["failed"] + ["done"] * 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, TooLongError("budget", "is over")])
def test_a_stop_in_the_recipes_own_trial_leaves_it_the_first_of_what_comes(tmp_path, stop):
    def stops(number, settings, report):
        raise stop

    for _ in range(2):
        with pytest.raises((KeyboardInterrupt, TooLongError)):
            run(tmp_path / "study", 1, stops)
    trials = run(tmp_path / "study", 3)
    assert [trial.settings for trial in trials[:4]] == [{}, {}, {}, FIRST[1]]
    assert [trial.state for trial in trials] == ["failed"] * 2 + ["done"] * 3
    assert recipe_as_it_is(trials).number == 2
    assert recipe_as_it_is(trials[:2]) is None


def test_a_planned_trial_that_did_not_fit_is_tried_again_and_a_drawn_one_is_not(tmp_path):
    def late(number, settings, report):
        if number in (1, 2):
            raise TooLongError("budget", "is over")
        return stub(number, settings, report)

    before = run(tmp_path / "study", 3, late)
    after = run(tmp_path / "study", 2)
    assert [trial.settings == FIRST[1] for trial in after] == [False, True, False, True, False]
    assert after[4].settings != before[2].settings


def test_a_trial_behind_the_median_at_the_same_part_of_its_steps_is_pruned(tmp_path):
    def evaluate(number, settings, report):
        del settings
        good = number < 5
        for done in (0.0, 0.25, 0.5, 0.75, 1.0):
            report(done, 0.9 if good else 0.1)
        return 0.9

    trials = run(tmp_path / "study", 6, evaluate)
    assert [trial.state for trial in trials] == ["done"] * 5 + ["pruned"]
    assert trials[-1].stopped_at == 25 or trials[-1].stopped_at == 50
    assert trials[-1].score is None
    assert trials[-1] not in best_trials(trials, 9)


def test_a_trial_that_cannot_run_is_left_out_but_the_recipe_itself_must_run(tmp_path):
    def evaluate(number, settings, report):
        if number == 1:
            raise UserError("step 3", "has a loss that is not finite")
        return stub(number, settings, report)

    assert [trial.state for trial in run(tmp_path / "study", 3, evaluate)] == [
        "done", "failed", "done",
    ]  # fmt: skip

    def never(number, settings, report):
        raise UserError("recipe", "does not run")

    with pytest.raises(UserError, match="does not run"):
        run(tmp_path / "other", 1, never)


def test_all_pruned_have_no_best():
    assert best_trials([], 3) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 1, "choices": [1]}, "choices alone"),
        ({"low": 2, "high": 1}, "low below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({}, "give choices"),
    ],
)
def test_a_key_is_a_range_or_choices(given, message):
    with pytest.raises(ValueError, match=message):
        SearchedKey(key="trainer.seed", **given)
