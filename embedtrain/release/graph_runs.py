"""Running an exported graph on texts and pairs, for checks and as an example of its use."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.pooling import segment_types
from embedtrain.types import Side

Feed = Mapping[str, NDArray[np.int64]]
"""Ids, mask and perhaps types of padded texts, by their names in the graph."""


class Runtime(ABC):
    """A graph that was loaded to be run."""

    names: list[str]
    """Of its inputs."""

    @abstractmethod
    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Return all outputs, in order."""


class OnnxRuntime(Runtime):
    """A graph in onnxruntime, on the CPU.

    Args:
        path: The file.
        threads: As many as onnxruntime likes where it is 0.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # what it did not fuse is no concern of users
        self.session: Any = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.names = [one.name for one in self.session.get_inputs()]

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        """Return all outputs, in order."""
        found: list[NDArray[Any]] = self.session.run(
            None, {name: feed[name] for name in self.names}
        )
        return found


class GraphEncoder:
    """Texts to vectors by a graph, whichever runtime runs it."""

    def __init__(self, model: TextEncoder, runtime: Runtime) -> None:
        self.model = model
        self.runtime = runtime

    def __call__(self, texts: Sequence[str], side: Side) -> list[NDArray[np.float32]]:
        """Return the vectors of each text, one or several, as the model's own encoding does."""
        feed, kept = padded_texts(self.model, texts, side)
        found = self.runtime(feed)
        if isinstance(self.model, DenseEncoder):
            return [row[None] for row in found[-1]]
        mask = kept if side == "query" else found[1]
        return [rows[keep] for rows, keep in zip(found[0], mask, strict=True)]


class GraphScorer:
    """Pairs to scores by a graph, whichever runtime runs it."""

    def __init__(self, model: CrossEncoderModel, runtime: Runtime) -> None:
        self.model = model
        self.runtime = runtime

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, "pairs outputs"]:
        """Return the score of each pair in a column, or the logits of its classes."""
        texts = self.model.pairs_of(pairs)
        seen = torch.arange(int(texts.sizes.max())) < texts.lengths[:, None]
        grid = torch.full(seen.shape, self.model.tokenizer.pad_token_id or 0)
        inputs = {"input_ids": grid.masked_scatter(seen, texts.ids), "attention_mask": seen.long()}
        types = segment_types(texts)
        if types is not None:
            inputs["token_type_ids"] = torch.zeros_like(grid).masked_scatter(seen, types)
        (logits,) = self.runtime({name: value.numpy() for name, value in inputs.items()})
        values: Float64[np.ndarray, "pairs outputs"] = logits.astype(np.float64)
        return values


def padded_texts(
    model: TextEncoder, texts: Sequence[str], side: Side
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_]]:
    """Pad texts on the right, or fill queries up with mask tokens where the contract expands them.

    Returns:
        What graphs take, and which rows a query keeps.
    """
    ids, contract = model.tokenization(texts, side), model.contract
    late = contract if isinstance(contract, LateInteractionContract) else None
    expands = late is not None and side == "query" and late.query_expansion
    width = contract.query_length if expands else max(map(len, ids))
    tokenizer = model.tokenizer
    filler = tokenizer.mask_token_id if expands else tokenizer.pad_token_id or 0
    padded = np.full((len(ids), width), filler, dtype=np.int64)
    attended = np.zeros_like(padded)
    for row, one in enumerate(ids):
        padded[row, : len(one)] = one
        attended[row, : len(one)] = 1
    kept = np.ones(padded.shape, dtype=bool) if expands else attended > 0
    if expands and late is not None and late.attend_to_expansion:
        attended[:] = 1
    feed = {
        "input_ids": padded,
        "attention_mask": attended,
        "token_type_ids": np.zeros_like(padded),
    }
    return feed, kept
