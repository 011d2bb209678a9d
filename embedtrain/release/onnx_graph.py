"""A model as one graph from token ids to embeddings or scores: backbone, pooling, head (extra ``onnx``).

Exporters of transformers leave pooling and projection to the reader; this graph leaves him nothing. Texts are
padded on the right; the tokenizer, prompts and templates stay outside, in ``tokenizer.json`` and the contract.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.texts import Pooling
from embedtrain.errors import UserError, missing_extra
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.models.pooling import segment_types
from embedtrain.models.text_model import TextModel
from embedtrain.types import Side

OPSET = 20
FILE = "onnx/embedding.onnx"
"""Not ``model.onnx``: readers expect that one to give token states."""
CLASSIFIER_FILE = "onnx/model.onnx"
"""Where readers of classifiers look for a graph, which they expect to give ``logits``."""
ANSWER_FILE = "onnx/score.onnx"
"""Readers would expect the logits of a whole vocabulary in a language model's ``model.onnx``."""


def graph_file(model: TextModel) -> str:
    """Return where in its folder a model's graph lies."""
    if not isinstance(model, CrossEncoderModel):
        return FILE
    return ANSWER_FILE if model.contract.answers else CLASSIFIER_FILE


class DenseGraph(nn.Module):
    """Ids and mask of padded texts to one vector per text."""

    def __init__(self, model: DenseEncoder) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.projection = model.projection
        self.pooling = model.contract.pooling
        self.normalize = model.contract.similarity == "cosine"

    def forward(
        self, input_ids: Int64[Tensor, "texts width"], attention_mask: Int64[Tensor, "texts width"]
    ) -> Float[Tensor, "texts dim"]:
        """Return what the model's own ``embed`` does."""
        states = _states(self.backbone, input_ids, attention_mask)
        pooled = pool_padded(states, attention_mask, self.pooling)
        if self.projection is not None:
            pooled = self.projection(pooled)
        return F.normalize(pooled, dim=-1) if self.normalize else pooled


class TokenGraph(nn.Module):
    """Ids and mask of padded texts to a vector per token, and which of them a document keeps.

    A query keeps all rows, its expansion included: give mask tokens with an attention of 0, or of 1 where the
    contract lets others attend to them.
    """

    def __init__(self, model: LateInteractionEncoder) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.projection = model.heads.projection
        self.normalize = model.contract.similarity == "cosine"
        self.register_buffer("skipped", model.skipped)
        self.skipped: Tensor

    def forward(
        self, input_ids: Int64[Tensor, "texts width"], attention_mask: Int64[Tensor, "texts width"]
    ) -> tuple[Float[Tensor, "texts width dim"], Bool[Tensor, "texts width"]]:
        """Return the vectors of all tokens and the mask of a document's."""
        projected = self.projection(_states(self.backbone, input_ids, attention_mask))
        vectors = F.normalize(projected, dim=-1) if self.normalize else projected
        skipped = (input_ids[:, :, None] == self.skipped).any(dim=-1)
        first = torch.arange(input_ids.shape[1], device=input_ids.device) == 0
        return vectors, (attention_mask > 0) & (~skipped | first)


class PairGraph(nn.Module):
    """Ids, mask and, where the model tells both texts apart, types of padded pairs to a score per pair."""

    def __init__(self, model: CrossEncoderModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head

    def forward(
        self,
        input_ids: Int64[Tensor, "pairs width"],
        attention_mask: Int64[Tensor, "pairs width"],
        token_type_ids: Int64[Tensor, "pairs width"] | None = None,
    ) -> Float[Tensor, "pairs classes"]:
        """Return what the model's own ``values`` does."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = _states(self.backbone, input_ids, attention_mask, **types)
        return self.head.logits(pool_padded(states, attention_mask, self.head.pooling))


def pool_padded(
    states: Float[Tensor, "texts width dim"],
    mask: Int64[Tensor, "texts width"],
    pooling: Pooling,
) -> Float[Tensor, "texts dim"]:
    """Pool as :func:`embedtrain.models.pooling.pool` does, for texts padded on the right."""
    weights = mask[:, :, None].to(states.dtype)
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last_token":
        last = (mask.sum(dim=1, keepdim=True) - 1)[:, :, None].expand(-1, -1, states.shape[2])
        return states.gather(1, last)[:, 0]
    if pooling == "max":
        lowest = torch.finfo(states.dtype).min
        return states.masked_fill(weights == 0, lowest).amax(dim=1)
    if pooling == "weighted_mean":
        weights = weights * (torch.arange(states.shape[1], device=states.device) + 1)[:, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def save_onnx(model: TextModel, path: Path) -> None:
    """Write the graph; :func:`embedtrain.release.onnx.export_onnx` also checks it.

    Raises:
        UserError: If the extra is missing, or the model does more than the graph can say.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise missing_extra(package, "onnx", "to export a graph")
    graph, outputs = _graph(model)
    names = _input_names(model)
    model.use_padded_attention()
    training = model.training
    model.eval()
    graph.eval()
    ids, mask = torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    example = (ids, mask, torch.zeros_like(ids))[: len(names)]
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(
            graph,
            example,
            path,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(sizes,) * len(names),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
        )
    model.train(training)


class OnnxEncoder:
    """Runs an exported graph on texts, for checks and as an example of its use."""

    def __init__(self, model: TextEncoder, path: Path) -> None:
        import onnxruntime

        self.contract = model.contract
        self.tokenization = model.tokenization
        self.tokenizer = model.tokenizer
        self.session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str], side: Side) -> list[NDArray[np.float32]]:
        """Return the vectors of each text, one or several, as the model's own encoding does."""
        ids, attended, kept = self._padded(self.tokenization(texts, side), side)
        found = self.session.run(None, {"input_ids": ids, "attention_mask": attended})
        if len(found) == 1:
            return [row[None] for row in found[0]]
        mask = kept if side == "query" else found[1]
        return [rows[keep] for rows, keep in zip(found[0], mask, strict=True)]

    def _padded(
        self, ids: list[NDArray[np.int32]], side: Side
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Pad texts on the right, or fill queries up with mask tokens where the contract expands them."""
        contract = self.contract
        late = contract if isinstance(contract, LateInteractionContract) else None
        expands = late is not None and side == "query" and late.query_expansion
        width = contract.query_length if expands else max(map(len, ids))
        filler = self.tokenizer.mask_token_id if expands else self.tokenizer.pad_token_id or 0
        padded = np.full((len(ids), width), filler, dtype=np.int64)
        attended = np.zeros_like(padded)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = one
            attended[row, : len(one)] = 1
        kept = np.ones(padded.shape, dtype=bool) if expands else attended > 0
        if expands and late is not None and late.attend_to_expansion:
            attended[:] = 1
        return padded, attended, kept


class OnnxScorer:
    """Runs an exported graph on pairs, for checks and as an example of its use."""

    def __init__(self, model: CrossEncoderModel, path: Path) -> None:
        import onnxruntime

        self.model = model
        self.session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, "pairs outputs"]:
        """Return the score of each pair in a column, or the logits of its classes."""
        texts = self.model.pairs_of(pairs)
        seen = torch.arange(int(texts.sizes.max())) < texts.lengths[:, None]
        grid = torch.full(seen.shape, self.model.tokenizer.pad_token_id or 0)
        inputs = {"input_ids": grid.masked_scatter(seen, texts.ids), "attention_mask": seen.long()}
        types = segment_types(texts)
        if types is not None:
            inputs["token_type_ids"] = torch.zeros_like(grid).masked_scatter(seen, types)
        given = {name: value.numpy() for name, value in inputs.items()}
        (logits,) = self.session.run(None, given)
        values: Float64[np.ndarray, "pairs outputs"] = logits.astype(np.float64)
        return values


def _input_names(model: TextModel) -> list[str]:
    typed = isinstance(model, CrossEncoderModel) and model.parts.has_types
    return ["input_ids", "attention_mask"] + ["token_type_ids"] * typed


def _graph(model: TextModel) -> tuple[nn.Module, list[str]]:
    if isinstance(model, CrossEncoderModel):
        return PairGraph(model), ["logits"]
    if isinstance(model, DenseEncoder):
        if not model.is_portable or isinstance(model.backbone, WordTable):
            raise _inexpressible("more than pooled, projected and normalised token states")
        if model.contract.document_model:
            raise _inexpressible("documents of another model")
        return DenseGraph(model), ["embeddings"]
    contract = model.contract
    assert isinstance(model, LateInteractionEncoder)
    assert isinstance(contract, LateInteractionContract)
    if not contract.is_portable or len(model.heads.head_dims) > 1:
        raise _inexpressible("more than projected, normalised tokens")
    return TokenGraph(model), ["embeddings", "mask"]


def _inexpressible(what: str) -> UserError:
    return UserError("--onnx", f"has no graph for {what}", cure="Leave it out")


def _states(
    backbone: nn.Module, input_ids: Tensor, attention_mask: Tensor, **types: Tensor
) -> Float[Tensor, "texts width dim"]:
    output = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **types)
    states: Tensor = output.last_hidden_state
    return states
