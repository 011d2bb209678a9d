"""Documents as help: answers behind one of them, and what each of several adds."""

import json

import pytest
import torch
from language_toys import whole

from embedtrain.encoding.language.answers import (
    AnswerLikelihood,
    Attributed,
    common_length,
    read_answers,
)
from embedtrain.encoding.language.attribution import attribute, masks_for
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

ANSWERS = {"is it red?": "Yes", "the dog": "small cat"}
PAIRS = [(query, text) for query in ANSWERS for text in ("a cat", "the red house", "x")]
LIKELIHOODS = {
    (True, True, True): -1.0, (False, True, True): -3.0, (True, False, True): -1.2,
    (True, True, False): -0.9, (True, False, False): -1.5, (False, True, False): -2.5,
    (False, False, True): -3.2, (False, False, False): -4.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "".join(json.dumps({"query": q, "answer": a}) + "\n" for q, a in ANSWERS.items())
    )
    return lambda **further: LanguageSettings(answers=str(path), **further)


def log_of_answer(model, query, context):
    ids = model.tokenizer(f"{context}\n\n{query}", add_special_tokens=False)["input_ids"]
    answer = model.tokenizer(f" {ANSWERS[query]}", add_special_tokens=False)["input_ids"]
    logs = whole(model, [*ids, *answer])[len(ids) - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, torch.tensor(answer)[:, None]).mean())


def test_scores_are_mean_logs_of_the_answer_behind_document_and_query(model, settings):
    found = AnswerLikelihood(model, settings()).logits(PAIRS)
    assert found == pytest.approx([log_of_answer(model, *pair) for pair in PAIRS], abs=2e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("loo", (2.0, 0.2, -0.1)), ("linear", (2.025, 0.625, 0.125)), ("shapley", (2.1, 0.7, 0.2))],
)
def test_attributions_are_those_worked_by_hand(kind, expected):
    needed = masks_for(kind, 3)
    found = attribute(kind, {mask: LIKELIHOODS[mask] for mask in needed})
    assert found == pytest.approx(expected, abs=1e-9)
    assert len(needed) == (4 if kind == "loo" else 8)


def test_many_documents_are_read_in_random_sets_that_are_the_same_each_time():
    masks = masks_for("shapley", 9)
    assert masks == masks_for("shapley", 9)
    assert len(masks) <= 4 * 9 + 2
    truth = [0.5, -0.25, 0, 1, 2, 0, -1, 0.125, 3]
    logs = {
        mask: sum(t for t, stands in zip(truth, mask, strict=True) if stands) - 7 for mask in masks
    }
    assert attribute("shapley", logs) == pytest.approx(truth, abs=1e-9)


def test_what_a_document_adds_is_seen_by_leaving_it_out(model, settings):
    found = Attributed(model, settings(attribution="loo")).logits(PAIRS)
    expected = []
    for query in ANSWERS:
        texts = [text for own, text in PAIRS if own == query]
        contexts = [texts, *([t for t in texts if t != left] for left in texts)]
        logs = [log_of_answer(model, query, "\n\n".join(one)) for one in contexts]
        expected += [logs[0] - log for log in logs[1:]]
    assert found == pytest.approx(expected, abs=4e-6)


def test_long_documents_of_a_list_are_cut_alike(model, settings):
    scorer = Attributed(model, settings(length=150, attribution="loo"))
    texts = ["y" * 300, "a cat", "w" * 300]
    found = scorer.logits([("the dog", text) for text in texts])
    _, kept = scorer._cut_alike("the dog", texts)
    # The answer of 10 tokens, the query of 4, three blank lines of 2 each, and the cat.
    size = (150 - len(" small cat") - len("the dog") - 3 * 2 - len("a cat")) // 2
    assert [len(text) for text in kept] == [pytest.approx(size, abs=4), 5, len(kept[0])]
    assert scorer.work.cut_documents == 2 + 2
    assert scorer.work.pairs == 3
    contexts = [kept, kept[1:], kept[::2], kept[:2]]
    logs = [log_of_answer(model, "the dog", "\n\n".join(one)) for one in contexts]
    assert found == pytest.approx([logs[0] - log for log in logs[1:]], abs=4e-6)


@pytest.mark.parametrize(
    ("sizes", "room", "expected"),
    [([3, 9, 9], 15, 6), ([3, 5], 8, 5), ([3, 5], 7, 4), ([4, 4], 1, 0), ([0], 9, 1)],
)
def test_short_documents_leave_their_room_to_long_ones(sizes, room, expected):
    assert common_length(sizes, room) == expected


def test_a_length_without_room_for_all_documents_is_refused(model, settings):
    scorer = Attributed(model, settings(length=26))
    with pytest.raises(UserError, match="--length leaves nothing for 3 documents"):
        scorer.logits(PAIRS)


def test_shapley_values_sum_to_what_all_documents_add(model, settings):
    found = Attributed(model, settings()).logits(PAIRS)
    for n, query in enumerate(ANSWERS):
        texts = [text for own, text in PAIRS if own == query]
        gained = log_of_answer(model, query, "\n\n".join(texts)) - log_of_answer(model, query, "")
        assert found[3 * n : 3 * n + 3].sum() == pytest.approx(gained, abs=1e-5)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (None, "--answers is missing"),
        ("", "holds no answer"),
        ('{"query": "a"}\n', r"answers\.jsonl:1 has no query or no answer"),
        ('{"query": "a", "answer": "b"}\nnot json\n', r"answers\.jsonl:2"),
        ('{"query": "a", "answer": "b"}\n', "--answers has no answer to a query; got 'is it red"),
    ],
)
def test_answers_that_are_not_there_are_refused(model, tmp_path, content, mistake):
    path = tmp_path / "answers.jsonl"
    if content is not None:
        path.write_text(content)
    settings = LanguageSettings(answers=None if content is None else str(path))
    with pytest.raises(UserError, match=mistake):
        AnswerLikelihood(model, settings).logits(PAIRS)


def test_a_line_ends_at_a_newline_only(tmp_path):
    path, answer = tmp_path / "answers.jsonl", "one\u2028two\u0085three"
    row = json.dumps({"query": "a", "answer": answer}, ensure_ascii=False)
    path.write_text(f"{row}\n\n", encoding="utf-8")
    assert read_answers(path) == {"a": answer}


def test_the_key_changes_with_the_answers_and_the_attribution(model, settings, tmp_path):
    first = AnswerLikelihood(model, settings()).key()
    keys = [Attributed(model, settings(attribution=one)).key() for one in ("loo", "linear")]
    path = tmp_path / "answers.jsonl"
    path.write_text(path.read_text().replace("small", "large"))
    keys += [first, AnswerLikelihood(model, settings()).key()]
    assert len(set(keys)) == 4
