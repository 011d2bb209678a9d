"""Log-odds of two answers, against transformers' own logits of the filled template."""

import numpy as np
import pytest
import torch
from language_toys import save_language_model, whole

from embedtrain.encoding.language import yes_no
from embedtrain.encoding.language.prompts import FORMS
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.language.yes_no import YesNo
from embedtrain.encoding.pair_scorers import PairScorer, open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

PAIRS = [
    (query, document)
    for query in ("is it red?", "the dog")
    for document in ("a cat", "the red house is large", "", "x" * 50)
]


@pytest.fixture(autouse=True)
def any_mass(monkeypatch):
    """A random model is about to say anything."""
    monkeypatch.setattr(yes_no, "LEAST_MASS", 0)


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


def logs_behind(model, scorer, pair, answer):
    """The log-probability of an answer by the plain run over the whole text."""
    text = scorer.reader.prompt.text.replace("{query}", pair[0]).replace("{document}", pair[1])
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    logs = whole(model, [*ids, *answer])[len(ids) - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, torch.tensor(answer)[:, None]).sum())


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("template", [None, "plain", "{document}? {query}"])
def test_scores_are_the_log_odds_of_the_whole_model(model, template, share):
    settings = LanguageSettings(template=template, yes="Yes", no="No")
    scorer = YesNo(model, settings, share=share)
    expected = [
        logs_behind(model, scorer, pair, scorer.answers.yes)
        - logs_behind(model, scorer, pair, scorer.answers.no)
        for pair in PAIRS
    ]
    assert len(scorer.answers.yes) == 1
    assert scorer.logits(PAIRS) == pytest.approx(expected, abs=2e-6)
    assert np.array_equal(scorer.logits(PAIRS), scorer.logits(PAIRS))
    assert len(scorer.logits([])) == 0


def test_answers_of_several_tokens_are_worth_the_sum_of_their_logs(model):
    scorer = YesNo(model, LanguageSettings(yes="good", no="not good"))
    assert (len(scorer.answers.yes), len(scorer.answers.no)) == (4, 8)
    expected = [
        logs_behind(model, scorer, pair, scorer.answers.yes)
        - logs_behind(model, scorer, pair, scorer.answers.no)
        for pair in PAIRS
    ]
    assert scorer.logits(PAIRS) == pytest.approx(expected, abs=2e-6)


def state_of(model, scorer, pair):
    """The last state of the filled template by the plain run."""
    text = scorer.reader.prompt.text.replace("{query}", pair[0]).replace("{document}", pair[1])
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        found = model.model.base_model(torch.tensor([ids]), use_cache=False)
    return found.last_hidden_state[0, -1].numpy()


@pytest.mark.parametrize("words", [("Yes", "No"), ("good", "not good"), ("Yes", "")])
def test_states_are_those_that_the_answers_are_read_from(model, words):
    scorer = YesNo(model, LanguageSettings(yes=words[0], no=words[1], centre=True))
    scores, states = scorer.logits_and_states(PAIRS)
    assert np.array_equal(scores, scorer.logits(PAIRS))
    expected = np.stack([state_of(model, scorer, pair) for pair in PAIRS])
    np.testing.assert_allclose(states, expected, atol=1e-9)
    if words == ("Yes", "No"):
        rows = model.head.weight[[scorer.answers.yes[0], scorer.answers.no[0]]].numpy()
        assert states @ (rows[0] - rows[1]) - scorer.shift == pytest.approx(scores, abs=1e-6)


def test_one_answer_alone_scores_by_its_logit(model, monkeypatch):
    monkeypatch.setattr(yes_no, "LEAST_MASS", 0.9)  # of two answers only
    scorer = YesNo(model, LanguageSettings(yes="Yes", no=""))
    text = scorer.reader.prompt.text.replace("{query}", PAIRS[0][0]).replace(
        "{document}", PAIRS[0][1]
    )
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = whole(model, ids)[-1, scorer.answers.yes[0]]
    assert scorer.logits(PAIRS[:1]) == pytest.approx([float(expected)], abs=2e-6)


def test_centred_scores_are_those_beside_a_pair_that_says_nothing(model):
    plain, centred = (YesNo(model, LanguageSettings(centre=one)) for one in (False, True))
    nothing = plain.logits([("N/A", "N/A")])
    assert centred.logits(PAIRS) == pytest.approx(plain.logits(PAIRS) - nothing, abs=1e-9)
    assert centred.key() != plain.key()
    assert centred.work.pairs == len(PAIRS)


def test_answers_are_found_in_the_form_that_the_model_prefers(model):
    scorer = YesNo(model, LanguageSettings(template="plain"))
    masses = {
        form: YesNo(model, LanguageSettings(template="plain", yes=form[0], no=form[1])).mass
        for form in FORMS
    }
    assert scorer.words == max(masses, key=masses.get)
    assert len(set(masses.values())) == 4
    assert scorer.describe()["yes"] == scorer.words[0]


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (("Yes", "Yes "), r"are words that the tokenizer splits alike; got \('Yes', 'Yes '\)"),
        (("good", "goodness"), "splits alike"),
        (("Yes", None), "--yes is given without --no"),
        ((None, "No"), "--no is given without --yes"),
        (("", "No"), "cannot be told from the template's end"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(model, words, mistake):
    with pytest.raises(UserError, match=mistake):
        YesNo(model, LanguageSettings(yes=words[0], no=words[1]))


def test_a_model_that_is_about_to_say_something_else_is_refused(model, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"is not about to answer.*of the probability, most have"):
        YesNo(model, LanguageSettings())


def test_the_work_is_counted(language_model):
    scorer = open_pair_scorer(language_model, kind="yes_no", language=LanguageSettings(length=200))
    assert isinstance(scorer, PairScorer)
    assert scorer.work.tokens == 0
    scorer.logits([(query, "y" * size) for query in ("the dog", "a") for size in (2, 90)])
    work = scorer.work
    assert (work.pairs, work.cut_documents) == (4, 2)
    assert 0 < work.shared_tokens < work.tokens


def test_the_key_changes_with_all_that_a_score_depends_on(language_model, model, tmp_path):
    asked = [
        LanguageSettings(), LanguageSettings(template="plain"), LanguageSettings(length=300),
        LanguageSettings(instruction="Find cats"), LanguageSettings(yes="good", no="bad"),
        LanguageSettings(query_length=7),
    ]  # fmt: skip
    keys = [YesNo(model, one).key() for one in asked]
    other = LanguageModel(save_language_model(tmp_path, initializer_range=0.1))
    keys.append(YesNo(other, LanguageSettings()).key())
    assert len(set(keys)) == len(keys)
    assert YesNo(model, LanguageSettings()).key() == keys[0]
