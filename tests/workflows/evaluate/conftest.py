"""Results that several pages are made of, and a task beside the toy corpus."""

import pytest

from embedtrain.retrieval.compression import Compression
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks


@pytest.fixture(scope="module")
def scores(bert, late_interaction, beir, tmp_path_factory):
    """Results of two models, and of the first cut to eight dimensions."""
    folder = tmp_path_factory.mktemp("scores")
    for name, model, compression in (
        ("mine", bert, Compression()),
        ("base", late_interaction, Compression()),
        ("small", bert, Compression(dim=8)),
    ):
        evaluate_tasks(model, Wish([str(beir)], compression=compression), folder / f"{name}.json")
    return folder


@pytest.fixture
def sts(write_jsonl, sentences):
    rows = [
        {"sentence1": one, "sentence2": other, "score": len(one), "topic": one.split()[0]}
        for one, other in zip(sentences[:40], sentences[40:80], strict=True)
    ]
    return str(write_jsonl(rows, "pairs.dev.jsonl"))
