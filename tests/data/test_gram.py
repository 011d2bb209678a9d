import numpy as np
import pytest

from embedtrain.data.gram import gram_of, num_pairs, part_of, square_of


def test_cosines_stand_row_by_row_and_lengths_of_features_play_no_part():
    features = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    expected = [0.6, 0.0, 0.0, -0.8, 0.0, 0.0]
    assert gram_of(features) == pytest.approx(expected)
    assert num_pairs(4) == 6


def test_the_square_is_whole_again():
    square = square_of([0.5, 0.25, -0.5], 3)
    assert square.tolist() == [[1, 0.5, 0.25], [0.5, 1, -0.5], [0.25, -0.5, 1]]
    assert square_of([], 1).tolist() == [[1]]


def test_a_part_is_that_of_the_documents_that_are_kept():
    features = np.random.default_rng(0).normal(size=(5, 3))
    kept = [True, False, True, True, False]
    found = part_of(tuple(gram_of(features).tolist()), 5, kept)
    assert found == pytest.approx(gram_of(features[kept]))
    assert part_of((), 5, kept) == ()
