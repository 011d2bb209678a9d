"""A reranker exported with probabilities: sigmoid(a s + b) is what every reader says, and the order stays."""

import json

import numpy as np
import pytest
from pair_toys import save_classifier

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.calibration import Calibration
from embedtrain.evaluation.results.result import write_result
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.edits.fold_sigmoid import fold_sigmoid
from embedtrain.release.export import export
from embedtrain.workflows.evaluate.tasks import Wish
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages

SAID = {"loss": 0.1, "loss_before": 0.2, "error": 0.1, "error_before": 0.2, "threshold": 0.5}
PAIRS = [("red cat", "a small dog"), ("blue house", "red cat"), ("a", "the small blue bird")]


@pytest.fixture(scope="module")
def measured(tmp_path_factory, beir):
    """Return a reranker, and the file of a result that says slope 2 and intercept -1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("embedtrain.release.export.verify", lambda *_: None)
        folder = tmp_path_factory.mktemp("probabilities")
        model = str(save_classifier(folder / "model", "roberta"))
        wish = Wish([str(beir)], efficiency=False)
        (result,) = evaluate_two_stages("bm25", wish, Reranking(model, top=3))
        said = Calibration(slope=2.0, intercept=-1.0, **SAID)
        stages = result.two_stage.model_copy(update={"calibration": said})
        write_result(result.model_copy(update={"two_stage": stages}), folder / "result.json")
        yield model, folder / "result.json"


def test_the_sigmoid_of_an_exports_score_is_the_probability(measured, tmp_path):
    model, result = measured
    written = export(model, tmp_path / "sure", probabilities=result)
    before, after = CrossEncoder(model).logits(PAIRS), CrossEncoder(str(written)).logits(PAIRS)
    np.testing.assert_allclose(after, 2 * before - 1, atol=1e-6)
    assert before.std() > 0.01
    theirs = pytest.importorskip("sentence_transformers").CrossEncoder(str(written), device="cpu")
    np.testing.assert_allclose(theirs.predict(PAIRS), 1 / (1 + np.exp(1 - 2 * before)), atol=1e-6)


def test_what_is_not_of_this_reranker_is_refused(measured, tmp_path, bert, beir):
    model, path = measured
    other = str(save_classifier(tmp_path / "other", "roberta", seed=1))
    plain, blended = json.loads(path.read_text()), json.loads(path.read_text())
    plain["two_stage"]["calibration"] = None
    blended["model"]["settings"]["blend"] = 0.5
    for given, name in ((plain, "plain"), (blended, "blended")):
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
    for source, result, problem in (
        (other, path, "is of another reranker"),
        (model, tmp_path / "plain.json", "does not say what scores mean"),
        (model, tmp_path / "blended.json", "blended"),
        (bert, path, "has no head for classes"),
    ):
        with pytest.raises(UserError, match=problem):
            export(source, tmp_path / "new", probabilities=result)
    with pytest.raises(UserError, match="or say probabilities and no more"):
        export(model, tmp_path / "new", layer=1, probabilities=path)
    with pytest.raises(UserError, match="are for models of two kinds"):
        export(model, tmp_path / "new", sparse=True, probabilities=path)
    with pytest.raises(UserError, match="--probabilities is for trained models"):
        export("recipe.yaml", tmp_path / "new", probabilities=path)
    with pytest.raises(UserError, match="--sparse is for trained models"):
        export("recipe.yaml", tmp_path / "new", sparse=True)
    assert not (tmp_path / "new").exists()


def test_a_head_without_a_bias_is_refused(tmp_path):
    model = load_cross_encoder(str(save_classifier(tmp_path / "model", "llama")))
    with pytest.raises(UserError, match="needs a head with a bias"):
        fold_sigmoid(model, 2.0, -1.0)
