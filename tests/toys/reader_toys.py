"""A reader of a toy's folder, written with transformers alone, that can be given the faults of real ones."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from embedtrain.verification.values import Bound


@dataclass
class FakeReader:
    """Encodes right as long as nothing else is asked for."""

    folder: str
    pooling: str = "mean"
    windows: dict = field(default_factory=lambda: {"query": 12, "document": 24, "plain": 24})
    prompts: dict | None = None
    """What it puts before texts of each mode; None: it is sent the prompts."""
    normalize: bool = True
    project: bool = True
    dim: int | None = None
    special: bool = True
    last: int | None = 0
    """Id of the last token; 0 for the model's own, None for none."""
    raw_cut: bool = False
    split_special: bool = False
    ascii_only: bool = False
    tells_ids: bool = True
    causal: bool = False
    padding: str = ""
    """``pooled``, ``attended``, ``both`` or ``last column``."""
    reverse: bool = False
    noise: float = 0.0
    offset: float = 0.0
    rotated: bool = False
    half: bool = False
    scales: bool = False
    """Whether activations are rounded to a byte by a scale of their batch."""
    empty: str = ""
    """``nan``, ``zeros`` or ``refused``."""
    bound: Bound = field(default_factory=lambda: Bound(1e-5))
    name: str = "fake"
    modes: tuple = ("query", "document", "plain")

    def __post_init__(self):
        self.adds_prompts = self.prompts is not None
        self.model = AutoModel.from_pretrained(self.folder, add_pooling_layer=False).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.generator = torch.Generator().manual_seed(0)
        self.projection = None
        dense = Path(self.folder) / "2_Dense" / "model.safetensors"
        if dense.is_file():
            self.projection = load_file(dense)
        if self.scales:
            for module in self.model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))

    def ids(self, texts, mode):
        return [self._ids(one, mode) for one in texts] if self.tells_ids else None

    def _ids(self, text, mode):
        if self.prompts is not None:
            text = self.prompts.get(mode, "") + text
        if self.ascii_only:
            text = "".join(one if one.isascii() else "x" for one in text)[:120]
        window = self.windows[mode]
        given = {"add_special_tokens": self.special}
        if self.split_special:
            given["split_special_tokens"] = True
        if self.raw_cut:
            return self.tokenizer(text, verbose=False, **given)["input_ids"][:window]
        ids = self.tokenizer(text, truncation=True, max_length=window, **given)["input_ids"]
        return ids if self.last == 0 else ids[:-1] + [self.last] * (self.last is not None)

    def encode(self, texts, mode):
        ids = [self._ids(text, mode) for text in texts]
        if not all(ids) or (self.empty == "refused" and "" in texts):
            return None
        found = self._vectors(ids)
        for row, text in enumerate(texts):
            if not text and self.empty in ("nan", "zeros"):
                found[row] = np.nan if self.empty == "nan" else 0
        found = found[::-1] if self.reverse else found
        return list(np.ascontiguousarray(found))

    def _vectors(self, ids):
        lengths = torch.tensor([len(one) for one in ids])
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in ids], True)
        inside = (torch.arange(padded.shape[1]) < lengths[:, None]).float()
        seen = torch.ones_like(inside) if self.padding in ("attended", "both") else inside
        allowed = seen[:, None, None, :].expand(-1, 1, padded.shape[1], -1)
        allowed = allowed.tril() if self.causal else allowed
        lowest = torch.finfo(torch.float32).min
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            mask = (1 - allowed) * lowest
            states = self.model(input_ids=padded, attention_mask=mask).last_hidden_state.float()
        weights = torch.ones_like(inside) if self.padding in ("pooled", "both") else inside
        pooled = self._pool(states, weights[:, :, None], lengths)
        if self.projection is not None and self.project:
            pooled = pooled @ self.projection["linear.weight"].T
            pooled = pooled + self.projection.get("linear.bias", 0)
        if self.rotated:
            pooled = pooled.roll(1, dims=1)
        pooled = pooled + self.noise * torch.randn(pooled.shape, generator=self.generator)
        pooled = pooled[:, : self.dim] + self.offset
        return (F.normalize(pooled, dim=-1) if self.normalize else pooled).numpy().copy()

    def _pool(self, states, weights, lengths):
        rows = torch.arange(len(states))
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "max":
            return states.masked_fill(weights == 0, -1e9).amax(1)
        if self.pooling == "last_token":
            return states[:, -1] if self.padding == "last column" else states[rows, lengths - 1]
        return (states * weights).sum(1) / weights.sum(1)

    def memory(self):
        return 0


def rounded(values):
    scale = values.abs().max() / 127
    return (values / scale).round() * scale
