import signal

import numpy as np
import pytest
from forks import fork, signal_on_call

from embedtrain.encoding import pair_cache
from embedtrain.encoding.pair_cache import PairCache, score_once
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError

PAIRS = [(query, document) for query in ("a", "ab") for document in ("bc", "c", "d")]


class Counter:
    """Scores a pair by the lengths of its texts and remembers what it was asked."""

    precision = "fp32"

    def __init__(self):
        self.work, self.asked = PairWork(), []

    def key(self):
        return "lengths"

    def logits(self, pairs):
        self.asked += pairs
        return np.array([len(query) + len(document) / 10 for query, document in pairs])


def score(folder, pairs=PAIRS, key="lengths"):
    scorer = Counter()
    return score_once(scorer, pairs, "toy", PairCache(folder, key)), scorer.asked


def test_a_second_call_scores_nothing_and_gives_the_same(tmp_path):
    first, asked = score(tmp_path)
    assert asked == PAIRS
    again, nothing = score(tmp_path)
    assert nothing == []
    assert np.array_equal(first.scores, again.scores)
    assert (first.num_scored, again.num_scored) == (6, 0)
    more, new = score(tmp_path, [*PAIRS, ("new", "one"), ("new", "one")])
    assert new == [("new", "one")]
    assert more.scores[-1] == np.float32(3.3)


def test_another_key_is_another_scorer(tmp_path):
    score(tmp_path)
    assert score(tmp_path, key="other template")[1] == PAIRS


def test_pairs_whose_texts_joined_are_equal_are_told_apart(tmp_path):
    found, _ = score(tmp_path, [("a", "bc"), ("ab", "c")])
    assert (
        score(tmp_path, [("ab", "c"), ("a", "bc")])[0].scores.tolist()
        == found.scores.tolist()[::-1]
    )


def test_a_killed_run_goes_on_behind_its_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr(pair_cache, "PAIRS_AT_ONCE", 2)

    def work():
        signal_on_call(Counter, "logits", 3)
        score(tmp_path)

    assert fork(work).returncode == -signal.SIGKILL
    assert score(tmp_path)[1] == PAIRS[4:]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_record_is_scored_again(damage, tmp_path):
    whole, _ = score(tmp_path)
    (path,) = tmp_path.rglob("*.scores")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-3])
    else:
        content[-8] ^= 1  # a bit of the last score
        path.write_bytes(content)
    again, asked = score(tmp_path)
    assert asked == PAIRS[-1:]
    assert np.array_equal(again.scores, whole.scores)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_score_that_no_order_can_be_made_of_is_refused_and_not_kept(value, tmp_path, monkeypatch):
    monkeypatch.setattr(Counter, "logits", lambda _, pairs: np.full(len(pairs), value))
    with pytest.raises(UserError, match="toy gives 6 of 6 pairs a score that is not finite"):
        score(tmp_path)
    assert not list(tmp_path.rglob("*.scores"))
