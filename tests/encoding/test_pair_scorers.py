import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedtrain.encoding.pair_scorers import PairScorer, detect_kind, open_pair_scorer
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.ops.similarity import all_scores

QUERIES, DOCUMENTS = ["red cat", "a dog"], ["the cat runs", "blue tree", "small dog"]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]


def test_a_dense_model_scores_pairs_by_inner_products(bert):
    scorer = open_pair_scorer(bert)
    assert isinstance(scorer, PairScorer)
    model = load_encoder(bert)
    products = encode_texts(model, QUERIES, "query") @ encode_texts(model, DOCUMENTS, "document").T
    assert scorer.logits(PAIRS) == pytest.approx(products.ravel(), abs=2e-6)
    assert scorer.work.pairs == len(PAIRS)


def test_late_interaction_scores_pairs_by_maxsim(late_interaction):
    model = load_encoder(late_interaction)
    sides = (
        encode_texts(model, texts, side).tensors()
        for texts, side in ((QUERIES, "query"), (DOCUMENTS, "document"))
    )
    found = open_pair_scorer(late_interaction).logits(PAIRS)
    assert found == pytest.approx(all_scores(*sides).ravel().numpy(), abs=2e-5)


def test_texts_that_repeat_and_blocks_change_no_score(bert, monkeypatch):
    scorer = open_pair_scorer(bert)
    whole = scorer.logits(PAIRS)
    monkeypatch.setattr("embedtrain.encoding.encoder_pairs.PAIRS_AT_ONCE", 4)
    assert np.array_equal(scorer.logits(PAIRS), whole)
    assert len(scorer.logits([])) == 0


def test_the_key_of_a_scorer_changes_with_its_precision(bert):
    one, other = (open_pair_scorer(bert, precision=name).key() for name in ("fp32", "bf16"))
    assert one != other


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen3ForCausalLM"])
def test_a_language_model_is_not_embedded_silently(name, bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    with pytest.raises(UserError, match=rf"is a language model.*got '?{name}'?\. Say what it is"):
        open_pair_scorer(str(folder))
    assert open_pair_scorer(str(folder), kind="encoder").logits(PAIRS).shape == (6,)
    (folder / "modules.json").write_text("[]")
    assert detect_kind(str(folder)) == "encoder"
