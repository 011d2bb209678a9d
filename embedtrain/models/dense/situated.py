r"""A chunk read within its document, beside a frozen model that reads it alone.

$$s(q, c) = \frac{\langle t_q, t_c \rangle + w\, \langle b_q, b_c \rangle}{1 + w}$$

with the vectors $b$ of the frozen base, which sees the chunk without its context, and $t$ of the model in training,
which sees both. What the base already knows gives the other no gradient, so that it learns what the context adds. The
score is one inner product, of $[t ; \sqrt{w}\, b] / \sqrt{1 + w}$: objectives, indexes and files need not know of it.

Source: SitEmb, https://arxiv.org/abs/2508.01959; the mean of both similarities, so that a temperature keeps its
meaning, is ours.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import PositiveFloat
from torch import Tensor, nn

from embedtrain.contract.spans import alone
from embedtrain.contract.texts import Tokenization
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.packed import Texts, upload
from embedtrain.section import Section
from embedtrain.types import Side

BY_BASE = 1 << 29
"""The bit of tokens that the base reads; they follow the model's own in the ids of a text."""
BASE = "base"
"""Where a model's folder has it."""


class SituatedConfig(Section):
    """A frozen model that reads a chunk alone, whose similarity the trained one corrects (SitEmb)."""

    base: str
    """Model folder or Hub id, of one vector per text."""
    weight: PositiveFloat = 0.5
    """w, of its similarity beside that of the trained model."""


class Situated(nn.Module):
    """The base, which never trains, and how its vectors stand beside others."""

    def __init__(self, base: TextEncoder, config: SituatedConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.config = config

    def split(self, texts: Texts) -> tuple[Texts, Texts]:
        """Return what the model reads of texts, and what the base does.

        Texts that were made up, to measure memory, have one reading, which serves both.
        """
        host = texts.on_host
        by_base = (host.ids & BY_BASE) > 0
        owner = torch.repeat_interleave(torch.arange(len(host)), host.lengths)
        counts = torch.bincount(owner[by_base], minlength=len(host))
        ids, of_base = texts.ids[upload(~by_base, texts.ids.device)], host.ids[by_base] & ~BY_BASE
        if not by_base.any():
            size = int(self.base.backbone.config.vocab_size)
            of_base, counts = (host.ids & (BY_BASE - 1)) % size, host.lengths
            return texts, Texts(of_base, counts).to(texts.ids.device)
        own = host.lengths - counts
        device = texts.ids.device
        return Texts(ids, upload(own, device), own), Texts(of_base, counts).to(device)

    def beside(
        self, vectors: Float[Tensor, "texts dim"], texts: Texts, execution: Execution
    ) -> Float[Tensor, "texts both_dims"]:
        """Return unit vectors of texts with those of the base beside them, of length 1 together."""
        with torch.no_grad():
            base = self.base.eval().embed(texts, execution)
        assert isinstance(base, Tensor)
        weight = self.config.weight
        both = torch.cat([vectors, math.sqrt(weight) * base.to(vectors.dtype)], 1)
        return both / math.sqrt(1 + weight)


class TwofoldTokenization(Tokenization):
    """Gives each text two readings: its own, and that of a base, which sees a marked span alone."""

    def __init__(self, own: Tokenization, beside: Situated) -> None:
        super().__init__(own.tokenizer, own.contract)
        self.base, self.config = beside.base, beside.config

    def __call__(self, texts: Sequence[str], side: Side) -> list[NDArray[np.int32]]:
        """Return the token ids of both readings of each text."""
        read = self.base.tokenization([alone(text) for text in texts], side)
        own = super().__call__(texts, side)
        return [
            np.concatenate([ids, others | BY_BASE]).astype(np.int32)
            for ids, others in zip(own, read, strict=True)
        ]

    def fingerprint(self, side: Side) -> str:
        """Return what changes with both ways to read, and with how much the base counts."""
        base = self.base.contract.model_dump_json(), self.base.tokenization.fingerprint(side)
        return " ".join([super().fingerprint(side), *base, str(self.config.weight)])
