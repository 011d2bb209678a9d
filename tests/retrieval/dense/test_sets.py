import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.retrieval.dense.sets import set_query


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_scores_are_sums_and_differences_of_mean_cosines() -> None:
    texts, first, second, third = unit(0, 5), unit(1, 3), unit(2, 2), unit(3, 4)
    expected = [
        np.mean(first @ x) + np.mean(second @ x) - np.mean(third @ x)  # a loop over the definition
        for x in texts
    ]
    found = set_query([first, second], [third]) @ texts.T
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_a_set_without_itself_is_nothing() -> None:
    same = unit(1, 3)
    assert not set_query([same], [same]).any()


def test_the_order_of_sets_and_of_their_members_does_not_matter() -> None:
    first, second = unit(1, 3), unit(2, 2)
    one, other = set_query([first, second]), set_query([second, first[::-1]])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_set_and_an_empty_one_are_refused() -> None:
    for like in ([], [unit(0, 0)]):
        with pytest.raises(UserError, match="at least one text"):
            set_query(like)
