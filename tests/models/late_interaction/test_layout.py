"""Folders of late-interaction models: ours, and those that other libraries write and read."""

import json
import string

import numpy as np
import pytest
import torch
from forks import fork
from late_toys import TEXTS, VARIANTS, embed, encoder, per_text
from safetensors.torch import load_file, save_file

from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder, save_encoder


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_saved_model_gives_the_same_vectors(bert, tmp_path, variant):
    model = encoder(bert, **variant)
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)
    save_encoder(model, tmp_path / "model")
    loaded = load_encoder(str(tmp_path / "model")).eval()
    assert loaded.contract == model.contract
    for side in ("query", "document"):
        ours, theirs = embed(model, TEXTS, side), embed(loaded, TEXTS, side)
        torch.testing.assert_close(theirs.tokens, ours.tokens)
        assert torch.equal(theirs.lengths, ours.lengths)
        assert torch.equal(theirs.ids, ours.ids) if ours.ids is not None else theirs.ids is None


PORTABLE = {
    "plain": {},
    "skipping": {"skiplist": ("cat", "!")},
    "attended": {"attend_to_expansion": True},
    "unexpanded": {"query_expansion": False},
    "prompted": {"query": {"prompt": "the ", "length": 12}},
    "heads": {"head_dims": (8, 4), "dim": 4},
}


def test_sentence_transformers_gives_the_same_vectors(bert, tmp_path):
    multi_vector = pytest.importorskip("sentence_transformers.multi_vector_encoder")
    texts = [*TEXTS, "red, cat! runs.", " ".join(TEXTS * 3)]
    models = {name: encoder(bert, **settings) for name, settings in PORTABLE.items()}
    for name, model in models.items():
        save_encoder(model, tmp_path / name)

    def read() -> None:
        out = {}
        for name in models:
            model = multi_vector.MultiVectorEncoder(str(tmp_path / name), device="cpu")
            both = {"query": model.encode_query(texts), "document": model.encode_document(texts)}
            out |= {
                f"{name}{side}{number}": np.asarray(vectors)
                for side, found in both.items()
                for number, vectors in enumerate(found)
            }
        np.savez(tmp_path / "out.npz", **out)

    done = fork(read)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as theirs:
        for name, model in models.items():
            for side in ("query", "document"):
                for number, ours in enumerate(per_text(embed(model, texts, side))):
                    found = theirs[f"{name}{side}{number}"]
                    assert found.shape == ours.shape, (name, side)
                    assert np.abs(found - ours.detach().numpy()).max() <= 1e-5


def test_a_model_that_others_cannot_express_hides_its_backbone_from_them(bert, tmp_path):
    save_encoder(encoder(bert, binary=True), tmp_path / "model")
    assert not (tmp_path / "model" / "config.json").exists()
    assert not (tmp_path / "model" / "modules.json").exists()


def test_a_stanford_folder_is_read_with_its_markers_and_projection(bert, tmp_path):
    model = encoder(bert)
    folder = tmp_path / "stanford"
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    projection = torch.randn(8, 32)
    weights = {f"bert.{key}": value for key, value in weights.items()}
    save_file(
        weights | {"linear.weight": projection}, folder / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    metadata = {"query_maxlen": 9, "doc_maxlen": 17, "query_token_id": "red", "doc_token_id": "dog"}
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    loaded = load_encoder(str(folder))
    assert torch.equal(loaded.heads.projection.weight, projection)
    contract = loaded.contract
    assert (contract.query_length, contract.document_length) == (9, 17)
    assert contract.markers == ("red", "dog")
    assert contract.skiplist == tuple(string.punctuation)
    ours, theirs = (dict(m.backbone.named_parameters()) for m in (model, loaded))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_smaller_dim_keeps_the_first_dimensions(bert, tmp_path):
    model = encoder(bert)
    save_encoder(model, tmp_path / "model")
    short = encoder(tmp_path / "model", dim=3)
    expected = torch.nn.functional.normalize(embed(model, TEXTS).tokens[:, :3], dim=1)
    torch.testing.assert_close(embed(short, TEXTS).tokens, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 9}, "does not fit"),
        ({"query": {"length": 99}}, "positions for"),
    ],
)
def test_what_a_folder_cannot_give_is_refused(bert, tmp_path, settings, message):
    save_encoder(encoder(bert), tmp_path / "model")
    with pytest.raises(UserError, match=message):
        encoder(tmp_path / "model", **settings)


@pytest.mark.parametrize("variant", ["colberter", "scored", "pooled"])
def test_what_a_folder_keeps_by_itself_is_not_pooled_by_several_factors(bert, tmp_path, variant):
    save_encoder(encoder(bert, **VARIANTS[variant]), tmp_path / "model")
    with pytest.raises(UserError, match=r"model\.pool_factors pools tokens"):
        encoder(tmp_path / "model", pool_factors=(1, 2))


def test_what_sentence_transformers_writes_itself_is_read_with_the_same_vectors(bert, tmp_path):
    multi_vector = pytest.importorskip("sentence_transformers.multi_vector_encoder")
    names = ("plain", "skipping", "attended", "unexpanded", "prompted")
    models = {name: encoder(bert, **PORTABLE[name]) for name in names}
    for name, model in models.items():
        save_encoder(model, tmp_path / name)

    def write() -> None:
        for name in names:
            native = multi_vector.MultiVectorEncoder(str(tmp_path / name), device="cpu")
            native.save_pretrained(str(tmp_path / f"{name}-native"))

    done = fork(write)
    assert done.returncode == 0, done.stderr
    for name, model in models.items():
        loaded = load_encoder(str(tmp_path / f"{name}-native")).eval()
        for side in ("query", "document"):
            ours, theirs = embed(model, TEXTS, side), embed(loaded, TEXTS, side)
            assert theirs.lengths.tolist() == ours.lengths.tolist(), (name, side)
            torch.testing.assert_close(theirs.tokens, ours.tokens, atol=1e-5, rtol=1e-5)
