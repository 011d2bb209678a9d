import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, load_encoder
from embedtrain.resources import resource
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline
from embedtrain.workflows.rotate import _draw, calibrate, rotate, rotate_for_bits


@pytest.fixture
def corpus(sentences, tmp_path) -> str:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return str(path)


def length_in(folder: str, texts: list[str], size: int) -> float:
    vectors = encode_texts(load_dense(folder), texts, "document")
    return float((vectors[:, :size] ** 2).sum() / (vectors**2).sum())


def test_the_rotated_folder_compares_as_before_and_puts_more_into_its_prefix(
    bert, corpus, sentences, tmp_path
):
    kept = rotate(bert, corpus, tmp_path / "rotated", texts=True)
    folder = str(tmp_path / "rotated")
    before, after = (encode_texts(load_dense(p), sentences, "document") for p in (bert, folder))
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=2e-6)
    assert list(kept) == [before.shape[1] // share for share in (2, 4, 8, 16)]
    for size, share in kept.items():
        assert share == pytest.approx(length_in(folder, sentences, size), abs=1e-5)
        assert share > length_in(bert, sentences, size)
    theirs = SentenceTransformer(folder, device="cpu", truncate_dim=8).encode(sentences[:3])
    np.testing.assert_allclose(theirs, cut(after[:3], theirs, 8), atol=2e-6)


def cut(vectors, like, size):
    """Whether a reader normalises after cutting is its own choice."""
    short = vectors[:, :size]
    return short * (np.linalg.norm(like, axis=1) / np.linalg.norm(short, axis=1))[:, None]


def test_rows_of_training_count_on_both_sides(bert, pairs, tmp_path):
    rotate(bert, str(pairs), tmp_path / "rotated")
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    model = load_dense(str(tmp_path / "rotated"))
    parts = [
        encode_texts(model, [row[key] for row in rows], side)
        for key, side in (("query", "query"), ("positive", "document"))
    ]
    vectors = np.concatenate(parts).astype(np.float64)
    moments = vectors.T @ vectors
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 1e-4 * moments.max()


def test_the_card_says_what_was_done(bert, corpus, tmp_path):
    shutil.copytree(bert, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# A model\n\nIts scores.\n", encoding="utf-8")
    rotate(str(tmp_path / "model"), corpus, tmp_path / "rotated", texts=True)
    card = (tmp_path / "rotated" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A model\n\nIts scores.\n")
    number = len(Path(corpus).read_text(encoding="utf-8").splitlines())
    assert f"principal components of {number:,} texts" in card


@pytest.mark.parametrize(("dim", "steps"), [(None, 5), (8, 0)])
def test_a_model_for_bits_has_vectors_nearer_to_their_signs(
    bert, corpus, sentences, tmp_path, dim, steps
):
    shutil.copytree(bert, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("# A model\n", encoding="utf-8")
    model = str(tmp_path / "model")
    before, after = rotate_for_bits(
        model, corpus, tmp_path / "bits", texts=True, dim=dim, steps=steps
    )
    assert before < after
    folder = str(tmp_path / "bits")
    old, new = (encode_texts(load_dense(p), sentences, "document") for p in (bert, folder))
    assert np.abs(new).sum(1).mean() / new.shape[1] ** 0.5 == pytest.approx(after, abs=1e-4)
    outputs = load_dense(folder).contract.outputs
    assert outputs is not None
    assert (outputs.quantize, outputs.dims) == (("binary",), (new.shape[1],))
    card = (tmp_path / "bits" / "README.md").read_text(encoding="utf-8")
    if dim is None:
        np.testing.assert_allclose(new @ new.T, old @ old.T, atol=2e-6)
        assert "Similarities of floats are those" in card
    else:
        assert new.shape[1] == 8
        assert "were left out" in card


def test_bits_need_dimensions_that_are_there(bert, corpus, tmp_path):
    with pytest.raises(UserError, match="more than the model's"):
        rotate_for_bits(bert, corpus, tmp_path / "out", texts=True, dim=10_000)
    assert not (tmp_path / "out").exists()


def test_mistakes_leave_nothing_behind(bert, corpus, late_interaction, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n", encoding="utf-8")
    out = tmp_path / "out"
    for model, data, message in (
        (bert, str(few), "fewer texts than the model has dimensions .*; got 2"),
        (late_interaction, corpus, "several vectors per text"),
    ):
        with pytest.raises(UserError, match=message):
            rotate(model, data, out, texts=True)
        assert not out.exists()
    with pytest.raises(UserError, match="Add --texts"):
        rotate(bert, corpus, out, column="text")
    assert not out.exists()
    out.mkdir()
    with pytest.raises(UserError, match="exists"):
        rotate(bert, corpus, out, texts=True)


def test_every_item_is_as_likely_to_be_drawn():
    assert _draw(range(5), 9) == [0, 1, 2, 3, 4]
    drawn = _draw(range(100_000), 2_000)
    assert len(set(drawn)) == 2_000
    assert np.histogram(drawn, 4, (0, 100_000))[0] == pytest.approx(500, abs=80)


def test_the_staged_recipe_trains_matryoshka_from_a_rotated_model(bert, pairs, beir, tmp_path):
    overrides = [
        f"contrast.data.sources=[{{path: {pairs}}}]",
        f"contrast.model.backbone={bert}",
        "contrast.model.query.length=16",
        "contrast.model.document.length=24",
        f"rotated.data={pairs}",
        f"cuttable.data.sources=[{{path: {pairs}}}]",
        "cuttable.objective.dims=[8]",
        "cuttable.objective.weights=[1]",
        *(f"{stage}.trainer.steps=2" for stage in ("contrast", "cuttable")),
        *(f"{stage}.trainer.batch_size=4" for stage in ("contrast", "cuttable")),
        *(f"{stage}.path={beir}" for stage in ("scores-contrast", "scores")),
    ]
    recipe = resource("recipes") / "dense/matryoshka_rotated.yaml"
    output = run_pipeline(load_pipeline(recipe, overrides), tmp_path / "run")
    first, last = (
        load_encoder(str(output / name)) for name in ("contrast/model", "cuttable/model")
    )
    assert last.contract == first.contract
    assert last.projection is not None
    run_pipeline(load_pipeline(recipe, overrides), output)  # nothing is done again


def unnormalised(folder: str, texts: list[str]) -> np.ndarray:
    model = load_dense(folder)
    model.contract = model.contract.model_copy(update={"similarity": "dot"})
    return encode_texts(model, texts, "document").astype(np.float64)


def test_calibrated_vectors_have_mean_0_and_spread_1_before_they_are_normalised(
    bert, corpus, sentences, tmp_path
):
    assert calibrate(bert, corpus, tmp_path / "out", texts=True) == len(sentences)
    before, after = (unnormalised(str(one), sentences) for one in (bert, tmp_path / "out"))
    expected = (before - before.mean(0)) / before.std(0)
    np.testing.assert_allclose(after, expected, atol=1e-4)
    own = encode_texts(load_dense(str(tmp_path / "out")), sentences[:3], "document")
    norms = np.linalg.norm(expected[:3], axis=1, keepdims=True)
    np.testing.assert_allclose(own, expected[:3] / norms, atol=1e-5)
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(sentences[:3])
    np.testing.assert_allclose(theirs, own, atol=2e-6)


def test_one_text_has_no_spread(bert, tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("red cat\n")
    with pytest.raises(UserError, match="holds too few texts; got 1"):
        calibrate(bert, str(path), tmp_path / "out", texts=True)
