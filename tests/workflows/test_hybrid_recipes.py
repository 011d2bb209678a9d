"""The recipes of models for use beside BM25, on a tiny model: every stage runs and the fusion is measured."""

import pytest

from embedtrain.evaluation.results.result import load_result
from embedtrain.resources import find_recipe
from embedtrain.workflows.pipeline import load_pipeline, run_pipeline

pytestmark = pytest.mark.usefixtures("forked_reloads")

QUICK = "{steps: 2, batch_size: 4, learning_rate: 1.0e-3, precision: fp32}"


def run(name, output, *overrides):
    return run_pipeline(load_pipeline(find_recipe(f"hybrid/{name}"), overrides), output)


def test_a_retriever_learns_from_what_bm25_gets_wrong(bert, beir, tmp_path):
    measured = ("alone", "zipped", "summed")
    folder = run(
        "complement_bm25",
        tmp_path / "run",
        f"mined.model={bert}",
        f"mined.data={beir}",
        "mined.split=test",
        f"complement.model.backbone={bert}",
        "complement.model.document.length=48",
        f"complement.trainer={QUICK}",
        *(f"{name}.path={beir}" for name in measured),
    )
    results = {name: load_result(folder / name / "scores.json") for name in measured}
    assert [results[name].fusion.rule for name in measured[1:]] == ["zipper", "sum"]
    for name in measured[1:]:
        parts = results[name].fusion.parts
        assert parts[0].metrics == results["alone"].metrics
        assert parts[1].model.name == "bm25"
        assert results[name].comparison.baseline.endswith("alone/scores.json")


def test_a_model_of_eight_vectors_per_document_is_weighed_against_bm25(bert, beir, pairs, tmp_path):
    folder = run(
        "me_bert",
        tmp_path / "run",
        f"retriever.data.sources=[{{path: {pairs}}}]",
        f"retriever.model.backbone={bert}",
        "retriever.model.dim=8",
        "retriever.model.document.length=48",
        f"retriever.trainer={QUICK}",
        f"alone.path={beir}",
        f"hybrid.path={beir}",
    )
    result = load_result(folder / "hybrid" / "scores.json")
    assert len(result.fusion.tuning.folds) == 5
    assert result.fusion.parts[0].metrics == load_result(folder / "alone" / "scores.json").metrics
