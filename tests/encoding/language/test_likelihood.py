"""Query likelihood, against transformers' own logits of the filled template."""

import pytest
import torch
from language_toys import whole

from embedtrain.encoding.language.likelihood import Likelihood
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

PAIRS = [
    (query, document)
    for query in ("is it red?", "the dog", "the")
    for document in ("a cat", "the red house is large", "the red house is large and old")
]


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


def tokens_of(model, scorer, query, document):
    """The log-probability of each token of the query."""
    before = scorer.reader.prompt.text.replace("{document}", document).removesuffix(" {query}")
    ids = model.tokenizer(before, add_special_tokens=False)["input_ids"]
    asked = model.tokenizer(f" {query}", add_special_tokens=False)["input_ids"]
    logs = whole(model, [*ids, *asked])[len(ids) - 1 : -1].log_softmax(-1)
    return logs.gather(1, torch.tensor(asked)[:, None])[:, 0]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("normalize", ["tokens", "sum", "pmi"])
def test_scores_are_log_probabilities_of_the_query(model, normalize, share):
    scorer = Likelihood(model, LanguageSettings(normalize=normalize), share=share)
    expected = []
    for query, document in PAIRS:
        logs = tokens_of(model, scorer, query, document)
        alone = tokens_of(model, scorer, query, "")
        value = {"tokens": logs.mean(), "sum": logs.sum(), "pmi": logs.sum() - alone.sum()}
        expected.append(float(value[normalize]))
    assert scorer.logits(PAIRS) == pytest.approx(expected, abs=2e-6)
    assert len(scorer.logits([])) == 0


def test_documents_that_repeat_are_read_once(model):
    scorer = Likelihood(model, LanguageSettings())
    scorer.logits(PAIRS)
    assert scorer.work.shared_tokens > scorer.work.tokens / 2


def test_a_template_that_goes_on_behind_the_query_is_refused(model):
    with pytest.raises(UserError, match=r"must end with \{query\} for a likelihood"):
        Likelihood(model, LanguageSettings(template="{document} {query}?"))


def test_the_key_changes_with_the_normalisation(model):
    keys = {
        Likelihood(model, LanguageSettings(normalize=one)).key() for one in ("tokens", "sum", "pmi")
    }
    assert len(keys) == 3
