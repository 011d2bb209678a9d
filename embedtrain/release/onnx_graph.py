"""A model as one graph from token ids to embeddings or scores: backbone, pooling, head (extra ``onnx``).

Exporters of transformers leave pooling and projection to the reader; this graph leaves him nothing. Texts are
padded on the right; the tokenizer, prompts and templates stay outside, in ``tokenizer.json`` and the contract.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.errors import UserError, missing_extra
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.cards.graphs import STATES_FILE
from embedtrain.release.padded_graphs import DenseGraph, PairGraph, StatesGraph, TokenGraph

Form = Literal["finished", "states"]
"""What a graph gives: finished vectors or scores only, or token states beside them."""
OPSETS: dict[Form, int] = {"finished": 20, "states": 18}
"""Of ``states`` an older one: readers in browsers lag behind."""
FILE = "onnx/embedding.onnx"
"""Not ``model.onnx``: readers expect that one to give token states."""
CLASSIFIER_FILE = "onnx/model.onnx"
"""Where readers of classifiers look for a graph, which they expect to give ``logits``."""
ANSWER_FILE = "onnx/score.onnx"
"""Readers would expect the logits of a whole vocabulary in a language model's ``model.onnx``."""
MOST_BYTES = 2**31 - 2**24
"""Of weights: a file of onnx ends at 2 GiB."""


def graph_file(model: TextModel, form: Form = "finished") -> str:
    """Return where in its folder a model's graph lies.

    Raises:
        UserError: If readers of ``states`` have no place for the model.
    """
    if isinstance(model, CrossEncoderModel):
        if form == "states" and model.contract.answers:
            raise _homeless("a language model's answers")
        return ANSWER_FILE if model.contract.answers else CLASSIFIER_FILE
    if form == "states" and not isinstance(model, DenseEncoder):
        raise _homeless("several vectors per text")
    return FILE if form == "finished" else STATES_FILE


def check_packages() -> None:
    """Check that the extra is installed.

    Raises:
        UserError: If not.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise missing_extra(package, "onnx", "to export a graph")


def save_onnx(model: TextModel, path: Path, form: Form = "finished") -> None:
    """Write the graph; :func:`embedtrain.release.onnx.export_onnx` also checks it.

    Raises:
        UserError: If the extra is missing, or the model does more than the graph can say.
    """
    check_packages()
    graph, outputs = model_graph(model, form)
    if sum(weight.nbytes for weight in graph.state_dict().values()) > MOST_BYTES:
        raise _inexpressible("more than 2 GiB of weights")
    names = input_names(model, form)
    ids, mask = torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    example = (ids, mask, torch.zeros_like(ids))[: len(names)]
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad(), traceable(model, graph):
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(
            graph,
            example,
            path,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(sizes,) * len(names),
            opset_version=OPSETS[form],
            dynamo=True,
            verbose=False,
            external_data=False,
        )


@contextmanager
def traceable(model: TextModel, graph: nn.Module) -> Iterator[None]:
    """Evaluate with an attention that adds its mask to the scores, where the family has one.

    The other one becomes a ``Where`` and an ``IsNaN`` over all scores in each layer, which runtimes do not fuse.
    """
    training = model.training
    model.eval()
    graph.eval()
    try:
        with model.plain_attention():
            yield
    finally:
        model.train(training)


def input_names(model: TextModel, form: Form = "finished") -> list[str]:
    """Return what a graph takes. Readers of ``states`` give it whatever the tokenizer makes."""
    if isinstance(model, CrossEncoderModel):
        typed = model.parts.has_types
    else:
        made = "token_type_ids" in model.tokenizer.model_input_names
        known = getattr(model.backbone.config, "type_vocab_size", 0) > 0
        typed = form == "states" and made and known
    return ["input_ids", "attention_mask"] + ["token_type_ids"] * typed


def model_graph(model: TextModel, form: Form = "finished") -> tuple[nn.Module, list[str]]:
    """Return a model as a function of padded ids, and the names of what it returns.

    Raises:
        UserError: If the model does more than that.
    """
    if isinstance(model, CrossEncoderModel):
        if model.contract.answer_start is not None:
            raise _inexpressible("an encoder-decoder")
        return PairGraph(model), ["logits"]
    if isinstance(model, DenseEncoder):
        if not model.is_portable or isinstance(model.backbone, WordTable):
            raise _inexpressible("more than pooled, projected and normalised token states")
        if model.contract.document_model:
            raise _inexpressible("documents of another model")
        if form == "states":
            return StatesGraph(model), ["last_hidden_state", "sentence_embedding"]
        return DenseGraph(model), ["embeddings"]
    contract = model.contract
    if not isinstance(model, LateInteractionEncoder):
        raise _inexpressible("a sparse model")
    assert isinstance(contract, LateInteractionContract)
    if not contract.is_portable or len(model.heads.head_dims) > 1:
        raise _inexpressible("more than projected, normalised tokens")
    return TokenGraph(model), ["embeddings", "mask"]


def _inexpressible(what: str) -> UserError:
    return UserError("--onnx", f"has no graph for {what}", cure="Leave it out")


def _homeless(what: str) -> UserError:
    return UserError("--transformers-js", f"has no place for {what}", cure="Use --onnx instead")
