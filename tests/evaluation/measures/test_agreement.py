"""Agreement against scikit-learn; intervals that hold what they say, however biased the judge."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.agreement import (
    auc,
    confusion,
    kappa,
    kappa_interval,
    prediction_powered,
    prediction_powered_difference,
)


@pytest.mark.parametrize("seed", [2, 4])
def test_kappa_is_that_of_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    people = generator.integers(2, size=300)
    judge = np.where(generator.random(300) < 0.6, people, generator.integers(2, size=300))
    assert abs(kappa(judge, people) - cohen_kappa_score(judge, people)) < 1e-12


def test_a_judge_that_always_says_the_same_has_kappa_0():
    people = np.array([1, 0, 0, 1])
    for verdict in (0, 1):
        assert kappa(np.full(4, verdict), people) == 0
    assert kappa(np.ones(4, dtype=np.int64), np.ones(4, dtype=np.int64)) == 0


def test_the_confusion_says_its_prevalence():
    judge = np.array([True, True, False, False, False])
    people = np.array([True, False, True, False, False])
    report = confusion(judge, people).report()
    assert [report[name] for name in ("num_pairs", "prevalence", "accuracy")] == [5, 0.4, 0.6]
    assert report["precision"] == report["recall"] == 0.5
    assert confusion(judge[3:], people[3:]).report()["recall"] is None


def test_auc_counts_ties_half_and_needs_both_kinds():
    generator = np.random.default_rng(0)
    scores, people = generator.integers(5, size=80).astype(float), generator.random(80) < 0.3
    assert auc(scores, people) == pytest.approx(roc_auc_score(people, scores), abs=1e-12)
    assert auc(scores, np.zeros(80, dtype=bool)) is None


def test_pairs_of_one_query_do_not_make_kappa_sure():
    """The same pairs as 40 queries and as 4: drawing pairs one by one would give both the same interval."""
    generator = np.random.default_rng(1)
    right = np.repeat(np.array([1, 1, 1, 0]), 100)  # a judge errs by query
    people = generator.integers(2, size=400)
    judge = np.where(right == 1, people, 1 - people)
    whole = [f"{number // 100}" for number in range(400)]
    alone = [f"{number}" for number in range(400)]
    few, many = (
        kappa_interval(judge, people, owner, num_resamples=500) for owner in (whole, alone)
    )
    assert few.value == many.value == pytest.approx(kappa(judge, people))
    assert few.high - few.low > 3 * (many.high - many.low)
    assert few.num == 4


def draw(generator, n, others, noise):
    """Metrics of people, and those of a judge that says yes too often."""
    truth = np.clip(generator.normal(0.5, 0.2, n + others), 0, 1)
    judged = np.clip(truth + 0.2 + generator.normal(0, noise, n + others), 0, 1)
    people = {f"{row}": value for row, value in enumerate(truth[:n].tolist())}
    return people, {f"{row}": value for row, value in enumerate(judged.tolist())}


def test_a_biased_judge_shifts_no_mean_and_narrows_its_interval():
    generator = np.random.default_rng(0)
    truth = float(np.clip(np.random.default_rng(9).normal(0.5, 0.2, 10**6), 0, 1).mean())
    covered, widths = 0, []
    for _ in range(2000):
        found = prediction_powered(*draw(generator, 50, 1000, noise=0.1))
        covered += found.low <= truth <= found.high
        alone = found.people_alone
        widths.append((found.high - found.low) / (alone.high - alone.low))
    assert 0.93 <= covered / 2000 <= 0.97
    assert np.mean(widths) < 0.75


def test_a_judge_that_knows_nothing_is_not_believed():
    generator = np.random.default_rng(3)
    people, judge = draw(generator, 400, 1000, noise=0.1)
    shuffled = dict(zip(judge, generator.permutation(list(judge.values())), strict=True))
    assert prediction_powered(people, shuffled).weight < 0.15
    constant = prediction_powered(people, dict.fromkeys(judge, 0.7))
    assert constant.weight == 0
    assert constant.value == constant.people_alone.value
    assert prediction_powered(people, {name: judge[name] for name in people}).weight == 0


def test_a_difference_is_that_of_the_differences():
    generator = np.random.default_rng(4)
    people, judge = draw(generator, 30, 200, noise=0.1)
    half = {name: value / 2 for name, value in people.items()}, {n: v / 2 for n, v in judge.items()}
    found = prediction_powered_difference((people, half[0]), (judge, half[1]))
    assert found.value == pytest.approx(prediction_powered(*half).value)


def test_too_few_people_or_queries_of_another_source_are_refused():
    people = {f"{number}": 0.5 for number in range(10)}
    with pytest.raises(UserError, match="never mix"):
        prediction_powered(people, {"a": 0.5})
    with pytest.raises(UserError, match="needs 8 queries"):
        prediction_powered({"a": 0.5}, {"a": 0.5, "b": 0.2})
