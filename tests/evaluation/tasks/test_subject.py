import numpy as np
import torch

from embedtrain.encoding.texts import encode_texts
from embedtrain.evaluation.tasks.subject import Subject, symmetric_view
from embedtrain.models.build import build_dense, load_encoder
from embedtrain.models.dense.config import DenseConfig, QuerySide

LONG = "red cat runs over the small house near a tree"


def test_two_checkpoints_never_share_vectors_and_one_does_not_encode_twice(bert, tmp_path):
    first, second = load_encoder(bert), load_encoder(bert)
    with torch.no_grad():
        second.backbone.embeddings.word_embeddings.weight[7] += 1e-3
    one, other = Subject(first, "one", tmp_path), Subject(second, "one", tmp_path)
    assert one.key != other.key
    assert one.encode(["red cat"], "query").shape == (1, 32)
    assert len(list(tmp_path.glob("embeddings/*"))) == 1
    other.encode(["red cat"], "query")
    assert len(list(tmp_path.glob("embeddings/*"))) == 2
    with torch.no_grad():
        first.backbone.embeddings.word_embeddings.weight.zero_()  # would show if it encoded again
    assert np.abs(one.encode(["red cat"], "query")).max() > 0


def test_texts_compared_with_their_like_get_the_query_prompt_and_the_longer_length(bert, tmp_path):
    config = DenseConfig(
        backbone=bert, query={"prompt": "query: ", "length": 4}, document={"length": 20}
    )
    model = build_dense(config)
    subject = Subject(model, "x", tmp_path)
    symmetric = subject.encode([LONG], "symmetric")
    whole = build_dense(config.model_copy(update={"query": QuerySide(length=20)}))
    expected = encode_texts(whole, [f"query: {LONG}"], "query")
    assert np.allclose(symmetric, expected, atol=1e-6)
    assert not np.allclose(symmetric, subject.encode([LONG], "query"))
    assert model.contract.query_length == 4, "the model itself is unchanged"


def test_late_interaction_keeps_its_own_query_length(late_interaction):
    model = load_encoder(late_interaction)
    assert symmetric_view(model) is model


def test_similarities_by_interaction_do_not_depend_on_which_text_comes_first(bert, tmp_path):
    torch.manual_seed(0)
    config = DenseConfig(backbone=bert, interaction={"hidden": 8})
    subject = Subject(build_dense(config), "x", tmp_path)
    texts = ["red cat", "a dog"], ["blue tree", "the house"]
    there, back = subject.similarities(*texts), subject.similarities(*texts[::-1])
    assert np.allclose(there, back)
    assert np.abs(there).max() > 0
