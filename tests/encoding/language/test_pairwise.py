"""Documents of a list are compared two by two."""

from itertools import permutations

import numpy as np
import pytest
from language_toys import whole

from embedtrain.encoding.language.pairwise import Pairwise
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.models.language.model import LanguageModel

DOCUMENTS = ["red house", "a dog", "blue green house", "x"]


@pytest.fixture(scope="module")
def scorer(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return Pairwise(found, LanguageSettings())


def first_wins(scorer, query, first, second):
    """The probability of A against B behind the prompt, by transformers itself."""
    asked = scorer._lists
    passages = f"\n[A] {first}\n[B] {second}"
    text = asked.text.replace("{query}", query).replace("{passages}", passages)
    logits = whole(asked.model, asked.model.tokenizer(text, add_special_tokens=False)["input_ids"])
    a, b = (float(logits[-1][letter]) for letter in asked.letters)
    return 1 / (1 + np.exp(b - a))


def test_a_score_is_the_mean_chance_to_win_in_both_orders(scorer):
    scores = scorer.logits([("is it red?", text) for text in DOCUMENTS])
    for text, score in zip(DOCUMENTS, scores, strict=True):
        others = [other for other in DOCUMENTS if other != text]
        chances = [
            (first_wins(scorer, "is it red?", text, other) + 1
             - first_wins(scorer, "is it red?", other, text)) / 2
            for other in others
        ]  # fmt: skip
        assert score == pytest.approx(np.mean(chances), abs=1e-9)
    assert scores.sum() == pytest.approx(len(DOCUMENTS) / 2), "each comparison has one winner"


def test_the_order_of_a_list_changes_no_score_and_lists_do_not_mix(scorer):
    known = dict(zip(DOCUMENTS, scorer.logits([("q", text) for text in DOCUMENTS]), strict=True))
    for order in list(permutations(DOCUMENTS))[::7]:
        found = scorer.logits([("alone", "x"), *(("q", text) for text in order)])
        assert found == pytest.approx([0.5, *(known[text] for text in order)], abs=1e-9)
    assert len(scorer.logits([])) == 0
