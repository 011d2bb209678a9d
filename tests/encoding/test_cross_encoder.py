import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_toys import pairs_of_lengths, save_classifier

from embedtrain.encoding import cross_encoder as module
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError

PAIRS = pairs_of_lengths((1, 1), (5, 3), (2, 30), (12, 12), (3, 20), (12, 1))


def test_of_two_classes_the_logit_is_that_of_the_second_less_the_first(tmp_path):
    """Which makes its sigmoid the second one's softmax."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for family in ("bert", "roberta"):
        folder = str(save_classifier(tmp_path / family, family, num_labels=2))
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        queries, documents = map(list, zip(*PAIRS, strict=True))
        with torch.no_grad():
            inputs = tokenizer(queries, documents, padding=True, return_tensors="pt")
            expected = model(**inputs).logits.softmax(1)[:, 1]
        found = CrossEncoder(folder).probabilities(PAIRS)
        assert np.allclose(found, expected.numpy(), atol=1e-6)


def test_more_classes_are_refused(tmp_path):
    folder = save_classifier(tmp_path / "m", "bert", num_labels=3)
    with pytest.raises(UserError, match="more than two classes; got 3"):
        CrossEncoder(str(folder))


def test_a_backbone_without_a_head_is_refused(bert):
    with pytest.raises(UserError, match="no head for classes"):
        CrossEncoder(bert)


def test_blocks_repetitions_and_order_change_no_score(tmp_path, monkeypatch):
    scorer = CrossEncoder(str(save_classifier(tmp_path / "m", "bert")))
    whole = scorer.logits(PAIRS)
    assert scorer.work.pairs == len(PAIRS)
    assert scorer.work.padding == 0
    turned = [*PAIRS[::-1], PAIRS[2]]
    assert np.allclose(scorer.logits(turned), [*whole[::-1], whole[2]], atol=1e-6)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 2)
    assert np.allclose(scorer.logits(PAIRS), whole, atol=1e-6)
    assert scorer.logits([]).shape == (0,)


def test_padding_is_counted_where_there_is_some(tmp_path):
    scorer = CrossEncoder(str(save_classifier(tmp_path / "m", "deberta")))
    scorer.logits(PAIRS)
    lengths = scorer.model.pairs_of(PAIRS).lengths
    assert scorer.work.tokens == int(lengths.sum())
    assert scorer.work.padding == int((lengths.max() - lengths).sum())


def test_documents_that_are_cut_are_counted(tmp_path):
    scorer = CrossEncoder(str(save_classifier(tmp_path / "m", "bert")))
    scorer.logits(pairs_of_lengths((4, 70), (2, 3), (1, 90)))
    assert scorer.work.cut_documents == 2


def test_the_key_knows_weights_lengths_and_precision(tmp_path):
    first = CrossEncoder(str(save_classifier(tmp_path / "a", "bert")))
    again = CrossEncoder(str(tmp_path / "a"))
    other = CrossEncoder(str(save_classifier(tmp_path / "b", "bert", seed=1)))
    assert first.key() == again.key() != other.key()
    again.model.contract = again.model.contract.model_copy(update={"query_length": 7})
    assert first.key() != again.key()
    assert first.key() != CrossEncoder(str(tmp_path / "a"), precision="bf16").key()


def test_what_no_weight_shows_gives_another_key(cross_encoder, tmp_path):
    other = Path(shutil.copytree(cross_encoder, tmp_path / "other"))
    assert CrossEncoder(str(other)).key() == CrossEncoder(cross_encoder).key()
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert CrossEncoder(str(other)).key() != CrossEncoder(cross_encoder).key()
