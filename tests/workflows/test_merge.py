import json

import numpy as np
import pytest
import torch

from embedtrain.contract.stored import StoredOutputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.workflows.merge import MergeWish, merge


@pytest.fixture
def two(bert, tmp_path) -> list[str]:
    """Two models that moved away from the same start."""
    paths = []
    for seed in range(2):
        model = build_dense(
            DenseConfig(backbone=bert, query={"length": 16}, document={"length": 16})
        )
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        save_encoder(model, tmp_path / f"model{seed}")
        paths.append(str(tmp_path / f"model{seed}"))
    return paths


def test_a_grid_measures_every_point_and_writes_the_best(two, bert, beir, tmp_path):
    wish = MergeWish(two, "delta", base=bert, grid=2, data=[str(beir)], split="dev")
    points = merge(wish, tmp_path / "merged")
    assert [(p.shares, p.granularity) for p in points] == [
        (shares, kind)
        for kind in ("tensor", "row", "element")
        for shares in ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
    ]
    report = json.loads((tmp_path / "merged" / "merge.json").read_text())
    best = max(points, key=lambda point: point.mean)
    assert report["chosen"]["shares"] == list(best.shares)
    assert len({round(point.mean, 6) for point in points}) > 1
    assert load_encoder(str(tmp_path / "merged")).contract.query_length == 16


def test_a_card_says_what_a_merged_model_is(two, tmp_path):
    card = "---\ntags:\n- a\n---\n# Mine\n\nTrained here.\n"
    (tmp_path / "model0/README.md").write_text(card)
    merge(MergeWish(two), tmp_path / "merged")
    written = (tmp_path / "merged/README.md").read_text()
    assert "This export is 2 models merged by `embedtrain merge --method linear`." in written
    assert "Trained here." in written


def test_vectors_side_by_side_have_the_mean_of_both_cosines(two, bert, tmp_path):
    plain = str(bert)  # of another contract, which merging weights refuses
    merge(MergeWish([two[0], plain], "concatenate", shares=[3.0, 1.0]), tmp_path / "both")
    texts = ["the red cat", "a small dog runs", "under the tree"]
    cosines = []
    for path in (two[0], plain, str(tmp_path / "both")):
        vectors = encode_texts(load_encoder(path), texts, "document")
        cosines.append(vectors @ vectors.T)
    np.testing.assert_allclose(cosines[2], (3 * cosines[0] + cosines[1]) / 4, atol=1e-6)
    assert np.abs(cosines[0] - cosines[1]).max() > 1e-3


def test_models_with_other_contracts_and_wishes_without_sense_are_refused(
    two, bert, beir, tmp_path
):
    out = tmp_path / "out"
    save_encoder(build_dense(DenseConfig(backbone=bert, pooling="cls")), tmp_path / "cls")
    save_encoder(build_dense(DenseConfig(backbone=bert, similarity="dot")), tmp_path / "dot")
    cases = [
        (MergeWish([two[0], str(tmp_path / "cls")]), "another contract"),
        (MergeWish([two[0], str(tmp_path / "dot")]), "another contract"),
        (MergeWish(two[:1]), "two or more"),
        (MergeWish(two, grid=2), "need each other"),
        (MergeWish(two, shares=[1.0, 2.0], grid=2, data=[str(beir)]), "takes the place"),
        (MergeWish([*two, two[0]], "concatenate"), "must be two"),
        (MergeWish(two, "concatenate", shares=[1.0]), "one for each of two models"),
        (MergeWish(two, "concatenate", shares=[1.0, -1.0]), "must be positive"),
        (MergeWish([two[0], str(tmp_path / "dot")], "concatenate"), "vectors that are normalised"),
        (MergeWish(two, "concatenate", base=bert), "neither --grid nor --base"),
        (MergeWish([*two, two[0]], grid=2, data=[str(beir)], split="dev"), "between two models"),
    ]
    for wish, message in cases:
        with pytest.raises(UserError, match=message):
            merge(wish, out)
        assert not out.exists()


def test_what_one_was_made_to_be_stored_as_neither_keeps_two_apart_nor_holds_of_a_mixture(
    two, bert, tmp_path, capsys
):
    model = load_encoder(two[0])
    stored = StoredOutputs(quantize=("binary",), dims=(model.dim,))
    model.contract = model.contract.model_copy(update={"outputs": stored})
    save_encoder(model, tmp_path / "bits")
    bits, found = str(tmp_path / "bits"), {}
    for name, wish in {
        "with floats": MergeWish([bits, two[1]]),
        "side by side": MergeWish([bits, two[1]], "concatenate"),
        "from floats": MergeWish([bits, bits], "delta", base=bert),
        "all alike": MergeWish([bits, bits]),
    }.items():
        merge(wish, tmp_path / name)
        found[name] = load_encoder(str(tmp_path / name)).contract.outputs
    assert found == {
        "with floats": None,
        "side by side": None,
        "from floats": None,
        "all alike": stored,
    }
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Not all that is mixed was made to be stored as bits") == 2


def test_a_model_is_mixed_with_its_own_start_under_its_own_contract(two, bert, tmp_path, capsys):
    merge(MergeWish([two[0], bert], shares=[0.25, 0.75]), tmp_path / "merged")
    said = " ".join(capsys.readouterr().err.split())
    assert f"{bert} has other prompts or lengths: the merged model has those of {two[0]}" in said
    ours, trained, start = (load_encoder(str(path)) for path in (tmp_path / "merged", two[0], bert))
    assert ours.contract == trained.contract != start.contract
    weights = trained.state_dict(), start.state_dict()
    for name, weight in ours.state_dict().items():
        if weight.is_floating_point():
            expected = 0.25 * weights[0][name] + 0.75 * weights[1][name]
            assert torch.allclose(weight, expected, atol=1e-6), name
