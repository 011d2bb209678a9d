"""Every part of a dense model: chunks that are encoded again give the gradients of one padded batch, in float64."""

import pytest
import torch
from backbone_toys import save_family
from objective_toys import relevance_of

from embedtrain.contract.spans import mark
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.objectives.base import Objective
from embedtrain.objectives.d2llm import D2LLM
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.margin_mse import MarginMSE
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.objectives.pointwise_distillation import PointwiseDistillation
from embedtrain.types import RetrievalBatch

NCE = InfoNCE(temperature=0.2)
QUERIES = 6
SHORT = {"query": {"length": 30}, "document": {"length": 30}}  # echo needs twice the positions
FRAMED = {"prompt": "the ", "suffix": " a", "length": 30}
PUBLISHED = {"start": 0, "stop": 2, "place": "before_text", "token": "random"}
PARTS: dict[str, tuple[str, dict[str, object], Objective]] = {
    "projection": ("bert", {"projection": 12, "learn_temperature": 0.2}, NCE),
    "attention pooling": ("bert", {"attention_pooling": {"num_heads": 4}}, NCE),
    "decoder pooling": ("t5", {"decoder_pooling": {"num_layers": 1}, "dropout": 0}, NCE),
    "interaction": ("bert", {"interaction": {"hidden": 8}}, D2LLM(temperature=0.5)),
    "last layers and comparisons": (
        "bert",
        {
            "layer_pooling": {"last": 2},
            "interaction": {"features": "comparisons", "hidden": 8},
        },
        PointwiseDistillation(scale=1, bias=0),
    ),
    "attention pooling and interaction": (
        "llama",
        {"attention_pooling": {"num_heads": 4}, "interaction": {"hidden": 8}},
        D2LLM(temperature=0.5),
    ),
    "query network": ("bert", {"query_network": {"num_layers": 1}, "projection": 8}, InfoNCE()),
    "query codes": ("bert", {"query_codes": {"num_codes": 3}}, MarginMSE()),
    "layer pooling": ("bert", {"layer_pooling": {}}, NCE),
    "query gate": ("bert", {"query_gate": {"kind": "slr"}}, NCE),
    "words": ("with_head", {"words": {"dim": 8, "kept": 16, "learned": True}}, NCE),
    "spans": ("bert", {"spans": "mean"}, NCE),
    "span mlp": ("bert", {"spans": "mlp"}, NCE),
    "exits": ("bert", {"exits": [1], "projection": 8, "exit_heads": True}, MultiExit(inner=NCE)),
    "bidirectional": ("llama", {"attention": "bidirectional", "pooling": "mean"}, NCE),
    "echo": ("llama", {"echo": True, "pooling": "mean", **SHORT}, NCE),
    "prepend": ("llama", {"prepend": {"stop": 1}, **SHORT}, NCE),
    "suffix": ("llama", {"query": FRAMED, "document": FRAMED}, NCE),
    "prompts": ("llama", {"prompts": [{"suffix": " a"}, {"prompt": "the ", "suffix": " x"}]}, NCE),
    "contrast": (
        "llama",
        {
            "query": FRAMED,
            "document": FRAMED,
            "pooling": "last_token",
            "contrast": {"suffix": " x", "layer": 0},
        },
        NCE,
    ),
    "prepend before the text": (
        "llama",
        {"prepend": PUBLISHED, "query": FRAMED, "document": FRAMED},
        NCE,
    ),
    "adapters": ("llama", {"lora": {"rank": 4}}, NCE),
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_family("t5", tmp_path_factory.mktemp("t5"))


@pytest.mark.parametrize("part", PARTS)
def test_chunks_that_are_encoded_again_give_the_gradients_of_one_batch(part, request, sentences):
    kind, settings, objective = PARTS[part]
    path, texts = request.getfixturevalue(kind), sentences[:30]
    if "spans" in settings:
        texts = [
            mark(text, [0, len(text.split()[0])]) if i % 2 else text for i, text in enumerate(texts)
        ]
    results = []
    for packing, execution in (
        ("padded", Execution(10_000)),
        ("auto", Execution(30, rematerialize=True)),
    ):
        torch.manual_seed(0)
        model = build_dense(DenseConfig(backbone=path, packing=packing, **settings), "cpu").double()
        queries, documents = (
            model.tokenization.encode(some, side)
            for some, side in ((texts[:QUERIES], "query"), (texts[QUERIES:], "document"))
        )
        rows = torch.arange(QUERIES), torch.arange(len(texts) - QUERIES)
        batch = RetrievalBatch(queries, documents, *rows, relevance_of(QUERIES))
        loss = objective(model(batch, execution)).loss
        loss.backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), found))
    (plain_loss, plain), (loss, chunked) = results
    torch.testing.assert_close(loss, plain_loss, rtol=1e-12, atol=1e-12)
    assert plain.keys() == chunked.keys()
    size = torch.stack([value.norm() for value in plain.values()]).norm()
    assert size > 1e-6
    for name, value in plain.items():
        assert (chunked[name] - value).norm() <= 1e-10 * size, name
