"""Compiled layers: the same gradients, one compilation for all chunks, and clear words where it cannot be."""

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models import compiling
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.compiling import compile_layers
from embedtrain.models.dense.config import DenseConfig
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.doctor import diagnose

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own, of itself


def gradients(model, texts, execution):
    model.zero_grad()
    embeddings = model.embed(texts, execution)
    (embeddings * torch.arange(embeddings.numel()).view_as(embeddings)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.prove
def test_compiled_layers_give_the_gradients_of_plain_ones_for_any_chunks(bert, sentences, tmp_path):
    model, plain = load_dense(bert).double(), load_dense(bert).double()
    names = list(model.state_dict())
    compile_layers(model)
    torch._dynamo.reset()
    for number in (12, 17, 9):
        texts = model.tokenization.encode(sentences[:number], "document")
        found = gradients(model, texts, Execution(60, rematerialize=True, recall=False))
        expected = gradients(plain, texts, Execution(10_000))
        assert found.keys() == expected.keys()
        whole = torch.stack([value.norm() for value in expected.values()]).norm()
        for name, value in expected.items():
            assert (found[name] - value).norm() <= 1e-11 * whole, name
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs <= 4, "compiled anew for other chunks"
    assert list(model.state_dict()) == names
    save_dense(model, tmp_path / "model")
    assert list(load_dense(str(tmp_path / "model")).state_dict()) == names


def test_chunks_are_padded_and_insisting_on_packing_is_refused(bert, monkeypatch):
    model = load_dense(bert)
    compile_layers(model)
    assert model.packing == "padded"
    packed = build_dense(DenseConfig(backbone=bert, packing="packed"), "cpu")
    with pytest.raises(UserError, match="needs padded chunks"):
        compile_layers(packed)
    monkeypatch.setattr(compiling, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_layers(load_dense(bert))


@pytest.mark.prove  # torch.compile from an empty cache takes longer than any other test
def test_the_doctor_covers_it(bert, pairs, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"description: Compiled.\ndata: {{sources: [{{path: {pairs}}}]}}\nmodel: {{backbone: {bert}}}\n"
        "trainer: {steps: 1, batch_size: 16, chunk_tokens: 60, rematerialize: true, compile: true}\n"
    )
    diagnosis = diagnose(load_recipe(path))
    assert diagnosis.healthy, diagnosis
