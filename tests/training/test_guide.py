"""A guide's vectors reach the batch by text id, in a real run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedtrain.contract.texts import Tokenization
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import Columns, SourceConfig, text_id
from embedtrain.data.mixture import Draw
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import tokenize_source
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense
from embedtrain.models.chunking import Execution
from embedtrain.objectives.embedding_distillation import EmbeddingDistillation
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.guide import GuideConfig, encode_guide, principal_components
from embedtrain.training.one_side import without_unread
from embedtrain.types import RetrievalOutputs
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.train import train


def test_vectors_are_found_by_the_ids_of_their_texts(bert, pairs, tmp_path):
    source = SourceConfig(path=str(pairs))
    guide = encode_guide(GuideConfig(model=bert), (source,), tmp_path)
    examples = list(open_source(source).examples())[:7]
    queries = [example.query for example in examples]
    negatives = [example.negatives[0] for example in examples]
    model = load_dense(bert)
    for store, texts, side in (
        (guide.queries, queries, "query"),
        (guide.documents, negatives, "document"),
    ):
        found = store.look_up(torch.tensor([text_id(text) for text in texts]))
        assert np.allclose(found.numpy(), encode_texts(model, texts, side), atol=1e-6)


def test_a_student_learns_the_vector_of_the_source_for_source_and_translation(
    bert, tmp_path, write_jsonl
):
    rows = [{"query": "red cat", "positive": "chat rouge"}, {"query": "dog", "positive": "chien"}]
    path = write_jsonl(rows)
    source = SourceConfig(path=str(path), columns=Columns(guide_text="source"))
    guide = encode_guide(GuideConfig(model=bert), (source,), tmp_path)
    own = Tokenization(load_dense(bert).tokenizer, load_dense(bert).contract)
    batch = BatchBuilder([tokenize_source(open_source(source), own, tmp_path)])(
        Draw(0, 0, np.arange(2))
    )
    expected = torch.from_numpy(encode_texts(load_dense(bert), ["red cat", "dog"], "query"))
    outputs = RetrievalOutputs(expected, expected, batch.relevance)
    seen = guide(outputs)
    torch.testing.assert_close(seen.query, expected)
    torch.testing.assert_close(seen.document, expected)
    objective = EmbeddingDistillation(kind="cosine")
    assert abs(objective(replace(outputs, guide=seen)).loss) < 1e-5
    swapped = replace(outputs, guide=seen, document=expected.flip(0))
    distance = 1 - (expected[0] @ expected[1])
    torch.testing.assert_close(objective(swapped).loss, distance)


def test_texts_for_a_guide_need_one_and_rows_of_their_own(bert, pairs):
    from embedtrain.errors import UserError

    source = {"path": str(pairs), "columns": {"guide_text": "source"}}
    content = {
        "data": {"sources": [source]},
        "model": {"backbone": bert},
        "trainer": {"steps": 1},
    }
    with pytest.raises(UserError, match="guide_text is what a guide reads: drop it or add guide"):
        load_recipe(content)
    guided = content | {"guide": {"model": bert}, "objective": {"name": "gist"}}
    load_recipe(guided)
    with pytest.raises(UserError, match="guide_text goes by rows"):
        load_recipe(guided, ["data.random_negatives=2"])


def test_gist_trains_with_a_guide_and_the_doctor_agrees(bert, bert_with_dropout, pairs, tmp_path):
    path = tmp_path / "gist.yaml"
    path.write_text(
        f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}]}}
model: {{backbone: {bert_with_dropout}}}
guide: {{model: {bert}}}
objective: {{name: gist, temperature: 0.1}}
trainer: {{steps: 3, batch_size: 8, chunk_tokens: 60, rematerialize: true, log_every: 1}}
"""
    )
    recipe = load_recipe(path)
    assert diagnose(recipe).healthy
    run = train(recipe, tmp_path / "run")
    assert "train/guided_ratio" in run.metrics.read_text()


def test_a_guide_that_nothing_uses_is_refused_and_so_is_its_lack(bert, pairs, tmp_path):
    from embedtrain.errors import UserError

    text = f"description: x\ndata: {{sources: [{{path: {pairs}}}]}}\nmodel: {{backbone: {bert}}}\ntrainer: {{steps: 1}}\n"
    (tmp_path / "a.yaml").write_text(text + f"guide: {{model: {bert}}}\n")
    with pytest.raises(UserError, match="objective info_nce has no use for guide"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(text + "objective: {name: gist}\n")
    with pytest.raises(UserError, match="objective gist needs guide"):
        load_recipe(tmp_path / "b.yaml")


def test_a_guide_shows_the_components_that_vary_most(bert, pairs, tmp_path):
    from objective_toys import random_outputs

    source = SourceConfig(path=str(pairs))
    whole = encode_guide(GuideConfig(model=bert), (source,), tmp_path)
    guide = encode_guide(GuideConfig(model=bert, dim=5), (source,), tmp_path)
    values = np.array(whole.documents.values, dtype=np.float64)
    _, _, axes = np.linalg.svd(values - values.mean(0), full_matrices=False)
    found = guide.components.numpy()
    assert np.allclose(np.abs((found * axes[:5]).sum(1)), 1, atol=1e-3)  # up to their signs
    ids = torch.from_numpy(whole.documents.ids[:5].copy())
    outputs = random_outputs(num_queries=2)
    relevance = replace(
        outputs.relevance,
        query_ids=torch.from_numpy(whole.queries.ids[:2].copy()),
        document_ids=ids.repeat(2)[:8],
    )
    shown = guide(replace(outputs, relevance=relevance)).document
    expected = whole.documents.look_up(ids.repeat(2)[:8]) @ guide.components.T
    torch.testing.assert_close(shown, torch.nn.functional.normalize(expected, dim=1))
    as_they_are = GuideConfig(model=bert, dim=5, normalize=False)
    raw = encode_guide(as_they_are, (source,), tmp_path)(replace(outputs, relevance=relevance))
    torch.testing.assert_close(raw.document, expected)
    with pytest.raises(ValueError, match="of components"):
        GuideConfig(model=bert, normalize=False)


def test_components_hold_the_share_of_variance_they_say_and_all_are_an_isometry():
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    vectors[:, 0] *= 3
    components, share = principal_components(vectors, 1)
    assert abs(share - np.var(vectors @ components[0].numpy()) / vectors.var(0).sum()) < 1e-4
    every, share = principal_components(vectors, 6)
    assert abs(share - 1) < 1e-9
    turned = vectors @ every.numpy().T
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-3)


def test_more_components_than_dimensions_are_refused(bert, pairs, tmp_path):
    from embedtrain.errors import UserError

    with pytest.raises(UserError, match=r"guide\.dim"):
        encode_guide(GuideConfig(model=bert, dim=33), (SourceConfig(path=str(pairs)),), tmp_path)


def test_most_of_a_teachers_similarities_live_in_its_first_components():
    """As vectors of encoders do, these vary in few directions much and in many a little."""
    generator = np.random.default_rng(0)
    spread = (1.0 / np.arange(1, 257)).astype(np.float32)
    vectors = generator.normal(size=(600, 256)).astype(np.float32) * spread
    vectors @= np.linalg.qr(generator.normal(size=(256, 256)))[0].astype(np.float32)

    def cosines(rows: np.ndarray) -> np.ndarray:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return (units @ units.T)[np.triu_indices(len(units), 1)]

    components, share = principal_components(vectors, 128)
    assert share > 0.95
    shown = cosines(vectors @ components.numpy().T)
    assert np.corrcoef(shown, cosines(vectors))[0, 1] > 0.95
    few, _ = principal_components(vectors, 1)
    assert np.corrcoef(cosines(vectors @ few.numpy().T), cosines(vectors))[0, 1] < 0.95


@pytest.mark.parametrize("side", ["query", "document"])
def test_texts_alone_are_encoded_on_one_side_and_their_teacher_sees_no_other(
    bert, tmp_path, write_jsonl, side
):
    texts = ["red cat", "a dog that barks", "blue whale of the sea", "ant"]
    path = write_jsonl([{"text": text} for text in texts])
    source = SourceConfig(path=str(path), columns=Columns(text="text"))
    objective = EmbeddingDistillation(sides=(side,))
    guide = encode_guide(GuideConfig(model=bert), (source,), tmp_path, [objective.read_sides])
    model = load_dense(bert)
    own = Tokenization(model.tokenizer, model.contract)
    batch = BatchBuilder([tokenize_source(open_source(source), own, tmp_path)])(
        Draw(0, 0, np.arange(4))
    )
    read = without_unread(batch, objective.read_sides)
    assert (len(read.queries), len(read.documents)) == ((4, 1) if side == "query" else (1, 4))
    student = load_dense(bert)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    outputs = student(read, Execution(10_000))
    outputs = replace(outputs, guide=guide(outputs, objective.read_sides))
    found = objective(outputs).loss
    theirs, ours = (
        torch.from_numpy(encode_texts(one, texts, side)) for one in (model, student.eval())
    )
    found = found.detach()
    assert float(found) == pytest.approx(float((theirs - ours).square().sum(1).mean()), rel=1e-4)
    assert float(found) > 0.01


def test_a_column_is_one_text_or_two():
    with pytest.raises(ValueError, match="in one"):
        Columns(text="text", query="question")


def test_leaf_trains_from_texts_alone(bert, tmp_path, write_jsonl):
    texts = [f"text number {number} of {word}" for number in range(6) for word in ("cats", "dogs")]
    path = write_jsonl([{"text": text} for text in texts])
    overrides = [
        f"data.sources=[{{path: {path}, columns: {{text: text}}}}]",
        f"guide.model={bert}",
        f"model.backbone={bert}",
        "model.kept_layers=[1]",
        "model.query.length=16",
        "model.document.length=24",
        "trainer.epochs=null",
        "trainer.steps=3",
        "trainer.batch_size=4",
        "trainer.precision=fp32",
    ]
    train(load_recipe("distill/leaf", overrides), tmp_path / "run")
    assert load_dense(str(tmp_path / "run" / "model")).num_layers == 1
    overrides += ["guide.encodes_documents=true", "objective.sides=[query]"]
    train(load_recipe("distill/leaf", overrides), tmp_path / "queries")
    student = load_dense(str(tmp_path / "queries" / "model"))
    assert student.num_layers == 1
    found, of_guide = (encode_texts(one, texts, "document") for one in (student, load_dense(bert)))
    assert np.array_equal(found, of_guide)
    for wrong in (
        ["guide.dim=4"],
        ["objective.kind=similarity", "objective.sides=[query,document]"],
    ):
        with pytest.raises(UserError, match="encodes_documents"):
            load_recipe("distill/leaf", overrides + wrong)
