"""Cross-encoders: a sequence classifier reads query and document together and says how relevant it is."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from embedtrain.encoding.cache import hash_state
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.loading import preferred_device
from embedtrain.models.backbone.pretrained import (
    read_config,
    read_model,
    read_tokenizer,
    refuse_other_vocabulary,
)
from embedtrain.precision import Chosen, Precision, choose, computing


class CrossEncoder:
    """A sequence classifier with one output, or with two of which the second means relevant."""

    precision: Chosen = "fp32"

    def __init__(self, path: str, *, batch_size: int = 32, precision: Precision = "fp32") -> None:
        from transformers import AutoModelForSequenceClassification

        folder = fetch(path)
        config = read_config(folder)
        self.tokenizer: Any = read_tokenizer(folder)
        self.model: Any = read_model(folder, config, AutoModelForSequenceClassification)
        refuse_other_vocabulary(folder, self.tokenizer, self.model)
        if self.model.config.num_labels > 2:
            raise UserError(
                path, "has more than two classes", got=self.model.config.num_labels,
                cure="Give a model that scores relevance",
            )  # fmt: skip
        self.batch_size = batch_size
        limit = getattr(self.model.config, "max_position_embeddings", 512)
        self.max_length = min(self.tokenizer.model_max_length, limit)
        self.device = preferred_device("auto")
        self.model.to(self.device).eval()
        self.precision = choose(precision, self.device.type)
        self.work = PairWork()

    def key(self) -> str:
        """Return a hash of the weights, the tokenizer, the length and the precision."""
        tokenizer = self.tokenizer.backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        identity = f"{tokenizer.to_str()}\n{self.max_length}"
        if self.precision != "fp32":
            identity += f"\n{self.precision}"
        return hash_state(self.model, hashlib.sha256(identity.encode()))

    @torch.no_grad()
    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs: log-odds of being relevant. Longest pairs first, so that batches hold no padding.

        A pair's batch depends only on the pairs given, so equal calls give equal bits.
        """
        order = sorted(range(len(pairs)), key=lambda row: -sum(map(len, pairs[row])))
        scores = np.empty(len(pairs))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            inputs = self.tokenizer(
                [pairs[row][0] for row in rows],
                [pairs[row][1] for row in rows],
                truncation="longest_first",
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            self._count(inputs)
            with computing(self.precision, self.device.type):
                found = self.model(**inputs).logits
            logits = found.double().cpu().numpy()
            scores[rows] = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        self.work.pairs += len(pairs)
        return scores

    def _count(self, inputs: Any) -> None:  # noqa: ANN401 - transformers is untyped
        mask = inputs["attention_mask"]
        tokens = int(mask.sum())
        self.work.tokens += tokens
        self.work.padding += mask.numel() - tokens
        self.work.cut_documents += sum(bool(one.overflowing) for one in inputs.encodings or ())

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Return the probability of each pair to be relevant."""
        probabilities: Float64[np.ndarray, " pairs"] = 1 / (1 + np.exp(-self.logits(pairs)))
        return probabilities
