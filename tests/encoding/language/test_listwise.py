"""Windows move over a list, and letters order each."""

from itertools import pairwise

import numpy as np
import pytest
from language_toys import whole

from embedtrain.encoding.language.listwise import Listwise, windows
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

DOCUMENTS = [
    f"{word} house" for word in ("red", "a", "blue green", "small", "large old", "no", "x")
]


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


@pytest.mark.parametrize("size", range(1, 61))
def test_windows_reach_from_the_last_to_the_first_and_overlap(size):
    found = windows(size, 20, 10)
    if size == 1:
        assert found == []
        return
    assert found[0][1] == size
    assert found[-1][0] == 0
    assert all(begin < end <= begin + 20 for begin, end in found)
    assert all(late[0] < early[1] for late, early in pairwise(found))


def test_the_first_documents_are_ordered_where_windows_do_not_fit():
    assert windows(25, 20, 10) == [(5, 25), (0, 20)]
    assert windows(7, 20, 10) == [(0, 7)]


def by_hand(model, scorer, query, documents):
    """Order one window by the logits of its letters."""
    names = "".join(f"\n[{'ABCDEFG'[n]}] {text}" for n, text in enumerate(documents))
    text = scorer.text.replace("{query}", query).replace("{passages}", names)
    logits = whole(model, model.tokenizer(text, add_special_tokens=False)["input_ids"])[-1]
    letters = [float(logits[scorer.letters[n]]) for n in range(len(documents))]
    return [documents[n] for n in np.argsort([-one for one in letters], kind="stable")]


def test_one_window_is_ordered_by_the_logits_of_its_letters(model):
    scorer = Listwise(model, LanguageSettings())
    for query in ("is it red?", "the dog"):
        scores = scorer.logits([(query, text) for text in DOCUMENTS])
        best_first = [DOCUMENTS[n] for n in np.argsort(-scores)]
        assert best_first == by_hand(model, scorer, query, DOCUMENTS)
        assert sorted(scores) == list(range(7))
    assert scorer.work.pairs == 14


def test_windows_carry_the_best_up_and_lists_do_not_mix(model):
    scorer = Listwise(model, LanguageSettings(window=4, step=2))
    expected = []
    for query in ("is it red?", "the dog"):
        order = list(DOCUMENTS)
        for begin, end in windows(7, 4, 2):
            order[begin:end] = by_hand(model, scorer, query, order[begin:end])
        expected += [6 - order.index(text) for text in DOCUMENTS]
    pairs = [(query, text) for query in ("is it red?", "the dog") for text in DOCUMENTS]
    assert scorer.logits([*pairs, ("alone", "x")]).tolist() == [*expected, 0]
    assert len(scorer.logits([])) == 0


def test_a_query_may_stand_behind_the_documents(model):
    scorer = Listwise(model, LanguageSettings(template="{passages}\nQuery: {query}\nBest: "))
    texts, _ = scorer._prompts([("is it red?", ["a b", "c"]), ("the dog", ["a b"])])
    first, second = map(model.tokenizer.decode, texts.each())
    assert first.endswith("\n[A] a b\n[B] c\nQuery: is it red?\nBest: ")
    assert second.endswith("\n[A] a b\nQuery: the dog\nBest: ")
    scores = scorer.logits([("the dog", text) for text in DOCUMENTS])
    best_first = [DOCUMENTS[n] for n in np.argsort(-scores)]
    assert best_first == by_hand(model, scorer, "the dog", DOCUMENTS)


def test_long_documents_are_cut_alike_and_the_question_stays(model):
    scorer = Listwise(model, LanguageSettings(length=100, window=3, step=1))
    texts, _ = scorer._prompts([("is it red?", ["y" * 900, "z", "w" * 900])])
    text = model.tokenizer.decode(texts.ids)
    assert len(texts.ids) <= 300
    assert text.endswith("Answer with its letter.</turn><turn>")
    assert text.count("y") - text.count("w") in range(-4, 5)
    assert scorer.work.cut_documents == 2


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        (
            {"template": "{query} and {document}"},
            r"must hold \{query\} and \{passages\}, each once",
        ),
        ({"window": 4, "step": 4}, "--step must be smaller than the window"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(model, settings, mistake):
    with pytest.raises(UserError, match=mistake):
        Listwise(model, LanguageSettings(**settings))


def test_no_room_for_documents_is_refused(model):
    scorer = Listwise(model, LanguageSettings(length=20, window=2, step=1))
    with pytest.raises(UserError, match="--length leaves nothing for 2 documents"):
        scorer.logits([("is it red?", text) for text in DOCUMENTS])
