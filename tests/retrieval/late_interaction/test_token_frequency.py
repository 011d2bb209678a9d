"""Document frequencies of tokens, counted by hand."""

import numpy as np
import pytest

from embedtrain.errors import UserError
from embedtrain.retrieval.late_interaction.token_frequency import TokenFrequencies
from embedtrain.types import TokenVectors


def test_a_token_counts_once_for_each_text_that_contains_it():
    ids = np.array([5, 5, 7, 5, 2**62, 7, 7])
    texts = TokenVectors(np.zeros((7, 1), np.float32), np.array([3, 0, 2, 2]), ids)
    frequencies = TokenFrequencies.count(texts)
    assert frequencies.ids.tolist() == [5, 7, 2**62]
    assert frequencies.counts.tolist() == [2, 2, 1]
    np.testing.assert_allclose(
        frequencies.inverse(np.array([5, 2**62, 6, -1])),
        np.log([5 / 3, 5 / 2, 5 / 1, 5 / 1]),
    )


def test_texts_without_ids_are_refused():
    with pytest.raises(UserError, match="need ids"):
        TokenFrequencies.count(TokenVectors(np.zeros((1, 1)), np.array([1])))
