"""The recipes of similarity, Matryoshka, exits and mixtures, on a tiny model: they run, and chunks change nothing."""

import json

import pytest
import torch

from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_dense
from embedtrain.models.chunking import Execution
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.export import export
from embedtrain.resources import resource
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.train import train

SMALL = [
    "model.query.length=40",
    "model.document.length=40",
    "trainer.batch_size=8",
    "trainer.precision=fp32",
    "trainer.chunk_tokens=100",
    "trainer.rematerialize=true",
]
CHANGES = {
    "sts/simcse": [
        "model.pooling=mean"
    ],  # without dropout, first tokens of a tiny model hardly differ
    "dense/matryoshka": ["objective.dims=[16, 8]"],
    "dense/matryoshka_2d": ["model.exits=[1]", "objective.inner.dims=[16, 8]"],
    "dense/multi_exit": ["model.exits=[1]", "model.projection=12"],
    "sts/codiemb_middle": ["model.exits=[1]"],
    "dense/query_gate": [],
    "mixtures/instructions": [],
    "mixtures/retrieval_and_similarity": [
        "model.instructions.retrieval={text: find}",
        "model.instructions.similarity={text: alike, both_sides: true}",
    ],
}
NAMES = sorted(f"sts/{path.stem}" for path in (resource("recipes") / "sts").glob("*.yaml"))


@pytest.fixture
def files(sentences, tmp_path, monkeypatch):
    """The data that the recipes name, each row with every column."""
    rows = []
    for number, text in enumerate(sentences[:40]):
        other = sentences[number + 50]
        row = {
            "query": text,
            "positive": other,
            "sentence1": text,
            "sentence2": other,
            "text": text,
        }
        rows.append(row | {"score": number % 6, "label": number % 3})

    def write(name: str, **changes: object) -> None:
        lines = "".join(json.dumps(row | changes) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)

    similar = [{key: row[key] for key in ("sentence1", "sentence2", "score")} for row in rows]
    (tmp_path / "sts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in similar))
    for name in ("nli", "intents", "sets", "texts", "glosses"):
        write(name)
    for name in ("triplets", "forum", "wiki"):
        write(name, negatives=sentences[100:101])
    write("pairs", label=1)
    together = ". ".join(sentences[:60])  # a document of many sentences under a heading
    documents = [
        {"title": f"{word} cats", "text": f"{word} dogs\n==========\n\n{together}."}
        for word in ("red", "blue", "green")
    ]
    posts = [{"text": f"{row['text']} #tag{number % 4}"} for number, row in enumerate(rows)]
    twice = [
        {"sentence1": f"the red cat {row['text']}", "sentence2": f"{number // 2} hund"}
        for number, row in enumerate(rows)
    ]
    for name, content in (("corpus", documents), ("posts", posts), ("bitext", twice)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", sorted({*NAMES, *CHANGES}))
def test_a_recipe_runs_and_its_chunks_give_the_plain_gradients(name, bert, masked_model, files):
    path = resource("recipes") / f"{name}.yaml"
    backbone = masked_model if name == "sts/word_prediction" else bert
    overrides = [f"model.backbone={backbone}", *SMALL, *CHANGES.get(name, [])]
    diagnosis = diagnose(load_recipe(path, overrides))
    assert diagnosis.healthy, diagnosis
    assert any(group.norm > 0 for group in diagnosis.groups)


def test_dropout_makes_the_two_copies_of_a_text_differ(bert_with_dropout, sentences):
    """What SimCSE and SetCSE learn from: a query and a document of the same text are encoded apart."""
    from objective_toys import relevance_of

    from embedtrain.types import RetrievalBatch

    model = load_dense(bert_with_dropout).train()
    texts = model.tokenization.encode(sentences[:6], "query")
    rows = torch.arange(6)
    outputs = model(RetrievalBatch(texts, texts, rows, rows, relevance_of(6, 1)), Execution())
    cosines = (outputs.query * outputs.document).sum(1)
    assert (cosines < 0.999).all()
    assert (cosines > 0.2).all()


def test_a_trained_run_exports_at_any_layer_and_dimension(bert, pairs, sentences, tmp_path):
    path = resource("recipes") / "dense" / "matryoshka_2d.yaml"
    overrides = [
        f"model.backbone={bert}",
        f"data.sources=[{{path: {pairs}}}]",
        *SMALL,
        *CHANGES["dense/matryoshka_2d"],
        "trainer.epochs=null",
        "trainer.steps=3",
    ]
    run = train(load_recipe(path, overrides), tmp_path / "run")
    small = export(str(run.path), tmp_path / "small", layer=1, dim=8)
    whole = load_dense(str(run.model)).eval()
    with torch.no_grad():
        tokens = whole.tokenization.encode(sentences[:5], "document")
        both = whole.embed_layers(tokens, Execution(), (1,))
    expected = torch.nn.functional.normalize(both[:, :8], dim=1)
    found = torch.from_numpy(encode_texts(load_dense(str(small)), sentences[:5], "document"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
