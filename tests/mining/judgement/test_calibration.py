import numpy as np
import pytest

from embedtrain.mining.judgement.calibration import Calibration, fitted, raised, yes_ratio


def test_a_judge_that_likes_to_say_yes_says_it_to_1_percent_of_random_pairs():
    generator = np.random.default_rng(0)
    others = generator.normal(2, 1, 20_000)
    assert yes_ratio(others, Calibration()) > 0.9
    ratios = []
    for _ in range(50):
        asked = generator.normal(2, 1, 200)
        found = raised(Calibration(), asked)
        assert 0 < yes_ratio(asked, found) <= 0.01
        ratios.append(yes_ratio(others, found))
    assert np.mean(ratios) == pytest.approx(0.01, abs=0.004)
    assert found.probabilities(np.array([found.shift]))[0] == 0.5


def test_random_pairs_never_lower_the_threshold():
    """A cross-encoder puts them at -11 and hard ones at -2: under a threshold of -10 all would be relevant."""
    assert raised(Calibration(), np.full(200, -11.0)) == Calibration()
    assert raised(Calibration(1.5), np.zeros(0)) == Calibration(1.5)


def test_labels_move_the_threshold_where_the_judge_knows_something():
    generator = np.random.default_rng(1)
    people = generator.random(2000) < 0.4
    odds = 3.0 * (np.where(people, 1.0, -1.0) + generator.normal(0, 1, 2000)) - 5
    found = fitted(odds, people)
    # The two normal distributions cross where both are as likely, prevalence included.
    assert found.shift == pytest.approx(-5 + 3 * np.log(0.6 / 0.4) / 2, abs=0.35)
    p = found.probabilities(odds)
    assert p.mean() == pytest.approx(people.mean(), abs=0.01)
    assert fitted(-odds, people) == Calibration()
    assert fitted(odds[:30], people[:30]) == Calibration()
    perfect = fitted(np.where(people, 4.0, -4.0), people)
    assert -4 < perfect.shift < 4
    assert 0 < perfect.scale < 4
