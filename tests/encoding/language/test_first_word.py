"""A tiny T5 as monoT5: log-odds of the first word that its decoder would write."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_scorers import detect_kind, open_pair_scorer
from embedtrain.errors import UserError

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "Query",
    ":",
    "Document",
    "Relevant",
    "true",
    "false",
    "N",
    "/",
    "A",
    "the",
    "red",
    "cat",
    "sleeps",
    "dog",
    "runs",
]
PAIRS = [("red cat", "the cat sleeps"), ("dog", "the red dog runs the dog"), ("cat", "dog")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    path = tmp_path_factory.mktemp("t5")
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=64,
    ).save_pretrained(path)  # fmt: skip
    torch.manual_seed(3)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = T5Config(vocab_size=len(WORDS), decoder_start_token_id=0, dropout_rate=0.0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def any_mass(monkeypatch):
    """Random weights prefer the word that they were given."""
    monkeypatch.setattr("embedtrain.encoding.language.first_word.LEAST_MASS", 0.0)


def opened(folder, **settings):
    return open_pair_scorer(
        folder, kind="yes_no", precision="fp32", language=LanguageSettings(**settings)
    )


def test_scores_are_the_log_odds_of_transformers_own(folder):
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    scorer = opened(folder)
    found = scorer.logits(PAIRS)
    model, tokenizer = T5ForConditionalGeneration.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)  # fmt: skip
    expected = []
    for query, document in PAIRS:
        text = f"Query: {query} Document: {document} Relevant:</s>"
        ids = tokenizer(text, return_tensors="pt").input_ids
        logits = (
            model(ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits[0, 0].detach()
        )
        true, false = (WORDS.index(word) for word in ("true", "false"))
        expected.append(float(logits[true] - logits[false]))
    assert np.ptp(expected) > 1e-3
    assert np.allclose(found, expected, atol=1e-5)
    alone = np.concatenate([opened(folder).logits([pair]) for pair in PAIRS])
    assert np.allclose(found, alone, atol=1e-5), "padding changes no score"
    assert scorer.work.pairs == 3
    assert scorer.describe()["yes"] == "true"


def test_other_words_a_centre_and_the_length_change_the_key_and_the_document_is_cut(folder):
    plain = opened(folder)
    keys = {plain.key(), opened(folder, length=12).key(), opened(folder, yes="red", no="cat").key()}
    centred = opened(folder, centre=True)
    assert len(keys | {centred.key()}) == 4
    assert np.allclose(plain.logits([("N/A", "N/A")]) - centred.shift, 0, atol=1e-6)
    short = opened(folder, length=12)
    short.logits([("red", "the cat sleeps the dog runs the red cat sleeps")])
    assert short.work.cut_documents == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"yes": "red cat", "no": "dog"}, "two words of one token each"),
        ({"yes": "red", "no": "red"}, "two words of one token each"),
        ({"yes": "red", "no": ""}, "two words of one token each"),
        ({"gram": True}, "--gram is of causal language models"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, settings, words):
    with pytest.raises(UserError, match=words):
        opened(folder, **settings)


def test_it_is_no_encoder_without_a_word(folder):
    with pytest.raises(UserError, match="Say what it is with --as"):
        detect_kind(folder)


def test_a_model_that_would_say_something_else_is_refused(folder, monkeypatch):
    monkeypatch.setattr("embedtrain.encoding.language.first_word.LEAST_MASS", 0.99)
    with pytest.raises(UserError, match="is not about to answer 'true' or 'false'"):
        opened(folder)
