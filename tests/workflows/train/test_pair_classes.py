"""A cross-encoder with classes from its recipe to the folder that others load."""

import json

import numpy as np
import pytest
import torch
from pair_toys import save_classifier
from sentence_toys import sentence

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.models.build import load_model
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.release.onnx import export_onnx
from embedtrain.release.pair_scores import values_of
from embedtrain.release.servers import loading_problems
from embedtrain.workflows.train import train

NAMES = ["shorter", "equal", "longer"]
PAIRS = [("red cat", "a small red house"), ("the dog runs", "blue"), ("red", "cat")]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Whether the second text is shorter, as long or longer; the first row is of the last class."""
    generator, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("rows") / "r.jsonl"
    found = []
    for number in range(48):
        one, other = [(2, 5), (4, 2), (3, 3)][number % 3]
        pair = {"sentence1": sentence(generator, one), "sentence2": sentence(generator, other)}
        found.append(pair | {"label": NAMES[1 + (other > one) - (other < one)]})
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def sections(rows, bert):
    columns = {"query": "sentence1", "positive": "sentence2", "label": "label"}
    return {
        "data": {"sources": [{"path": str(rows), "columns": columns}]},
        "model": {
            "kind": "cross_encoder", "backbone": bert, "query_length": 8, "length": 32,
            "classes": NAMES,
        },
        "objective": {"name": "pair_classification"},
        "trainer": {"steps": 40, "batch_size": 16, "chunk_tokens": 200, "learning_rate": 5e-3},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(sections, tmp_path_factory):
    return train(load_recipe(sections), tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.prove
@pytest.mark.usefixtures("fresh_reloads")
def test_others_read_the_classes_by_name_and_the_same_logits(run, rows, tmp_path):
    from sentence_transformers import CrossEncoder as Theirs
    from transformers import pipeline

    ours = values_of(load_model(str(run.model)), PAIRS)
    assert ours.shape == (3, 3)
    theirs = Theirs(str(run.model), device="cpu")
    assert np.allclose(theirs.predict(PAIRS), ours, atol=1e-5)
    classify = pipeline("text-classification", model=str(run.model))
    known = [json.loads(line) for line in rows.read_text().splitlines()]
    found = classify([{"text": row["sentence1"], "text_pair": row["sentence2"]} for row in known])
    right = [one["label"] == row["label"] for one, row in zip(found, known, strict=True)]
    assert sum(right) >= 40, "names stand beside the numbers that they were trained with"
    again = export(run.path, tmp_path / "again")
    assert np.allclose(values_of(load_model(str(again)), PAIRS), ours, atol=1e-6)
    export_onnx(again)
    twice = export(again, tmp_path / "twice")
    assert json.loads((twice / "config.json").read_text())["id2label"]["2"] == "longer"


def test_the_folder_is_a_classifier_and_no_reranker(run):
    config = json.loads((run.model / "config.json").read_text())
    assert config["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
    assert config["label2id"] == {name: number for number, name in enumerate(NAMES)}
    assert config["sentence_transformers"]["activation_fn"].endswith("Identity")
    assert any("/rerank refuses" in one for one in loading_problems(run.model)["vLLM"])
    card = (run.model / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "of: shorter, equal, longer." in card
    assert "rerank" not in card.replace("cross-encoder", "")
    with pytest.raises(UserError, match="classes of pairs apart and has no score"):
        CrossEncoder(str(run.model))


def test_a_folder_that_tells_as_many_apart_is_trained_on(sections, tmp_path):
    start = str(save_classifier(tmp_path / "start", "bert", num_labels=3))
    asked = [f"model.backbone={start}", "trainer.steps=1", "trainer.learning_rate=1.0e-9"]
    run = train(load_recipe(sections, asked), tmp_path / "run")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(start).eval()
    inputs = AutoTokenizer.from_pretrained(start)(*PAIRS[0], return_tensors="pt")
    found = values_of(load_model(str(run.model)), PAIRS[:1])
    assert np.allclose(found, theirs(**inputs).logits.detach().numpy(), atol=1e-4)
    with pytest.raises(UserError, match=r"model\.classes are not the 3 that"):
        train(load_recipe(sections, [*asked, "model.classes=[a, b]"]), tmp_path / "other")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective={name: info_nce}", "info_nce learns one score of a pair, and model.classes are 3"),
        ("objective={name: sum, objectives: [{name: pair_classification}, {name: info_nce}]}", "learns one score"),
        ("model.classes=[]", "pair_classification and model.classes need each other"),
        ("model.classes=[a]", "two names or more"),
        ("model.scorer=yes_no", "two names or more, of a classifier"),
        ("validation={path: x, every_steps: 1}", "put no documents in order"),
        ("model.classes=[shorter, longer, same]", "label is none of the classes; got 'equal'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(override, words, sections, tmp_path):
    with pytest.raises(UserError, match=words):
        train(load_recipe(sections, [override]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_classes_in_the_rows_than_in_the_model_are_one_line(sections, tmp_path):
    rows = [{"sentence1": "red", "sentence2": "cat", "label": number % 4} for number in range(32)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "{query: sentence1, positive: sentence2, label: label}"
    source = f"data.sources=[{{path: {path}, columns: {columns}}}]"
    with pytest.raises(UserError, match=r"model\.classes is less than the number of classes"):
        train(load_recipe(sections, [source]), tmp_path / "run")
