"""Expected grades, by hand and against transformers' own logits."""

import pytest
import torch
from language_toys import whole

from embedtrain.encoding.language.graded import Graded, expected_grades
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

PAIRS = [("is it red?", "a cat"), ("is it red?", "the red house"), ("the dog", "a cat")]


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


def test_the_expected_grade_is_the_mean_under_the_softmax():
    logs = torch.tensor([[0, 1, 2, 1, 0], [0, 0, 1, 2, 2]], dtype=torch.float64)
    assert expected_grades(logs).tolist() == pytest.approx([3.0, 3.983113], abs=1e-6)


@pytest.mark.parametrize("labels", [("1", "2", "3"), ("bad", "fair", "good")])
def test_scores_are_expected_grades_of_the_whole_model(model, labels):
    scorer = Graded(model, LanguageSettings(labels=labels))
    assert {len(answer) for answer in scorer.answers} == ({1} if labels[0] == "1" else {3, 4})
    expected = []
    for query, document in PAIRS:
        text = scorer.reader.prompt.text.replace("{query}", query).replace("{document}", document)
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        logs = []
        for answer in scorer.answers:
            found = whole(model, [*ids, *answer])[len(ids) - 1 : -1].log_softmax(-1)
            logs.append(found.gather(1, torch.tensor(answer)[:, None]).sum())
        shares = torch.stack(logs).softmax(0)
        expected.append(float(sum((n + 1) * share for n, share in enumerate(shares))))
    assert scorer.logits(PAIRS) == pytest.approx(expected, abs=2e-6)
    assert ", ".join(labels) in scorer.describe()["template"]


def test_labels_that_begin_alike_are_refused(model):
    with pytest.raises(UserError, match="--labels are words that the tokenizer splits alike"):
        Graded(model, LanguageSettings(labels=("1", "10")))


def test_one_label_is_no_scale(model):
    with pytest.raises(UserError, match="--labels must be two or more; got "):
        Graded(model, LanguageSettings(labels=("1",)))
