"""The generator of replaced language modelling: a small language model that fills masked places."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.texts import Contract
from embedtrain.models.backbone.language_head import Architecture, MaskedLanguageModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.packed import Texts
from embedtrain.pretrain_types import Labelled, LabelledHead, MaskedBatch
from embedtrain.section import Section

TILE = 2**23
"""Logits held at once while sampling."""


class GeneratorConfig(Section):
    """A small masked language model with the encoder's vocabulary; give ``backbone`` or ``architecture``."""

    backbone: str | None = None
    """A trained one: a folder with a masked-language head, such as the model/ of an MLM run."""
    architecture: Architecture | None = None
    """A new one, which must be trained."""
    train: bool = True
    """Train it along, by its own masked-language loss; else it is frozen, as in the paper."""


class Generator(nn.Module):
    """Replaces masked tokens by samples of its own predictions; no gradient flows through a sample.

    Args:
        language: The small model.
        contract: Lengths of the texts.
        train_along: Whether its own loss is wanted; else it is frozen and in evaluation mode.
    """

    def __init__(
        self, language: MaskedLanguageModel, contract: Contract, *, train_along: bool
    ) -> None:
        super().__init__()
        self.language = language
        self.encoder = DenseEncoder(language.backbone, contract)
        self.train_along = train_along
        self.requires_grad_(train_along)

    def train(self, mode: bool = True) -> "Generator":
        """Set the mode; a frozen generator stays in evaluation mode."""
        return super().train(mode and self.train_along)

    def fill(self, chunks: list[MaskedBatch]) -> tuple[list[MaskedBatch], LabelledHead | None]:
        """Replace the masked tokens of encoder and decoder by samples, drawn separately for each.

        Returns:
            The filled chunks, and what the generator's own loss needs where it is trained.
        """
        filled, hidden, labels = [], [], []
        for chunk in chunks:
            replaced: dict[str, Any] = {}
            for side in ("encoder", "decoder"):
                masked = getattr(chunk, f"{side}_masked")
                states = self._hidden(
                    Texts(getattr(chunk, f"{side}_ids"), chunk.texts.lengths), masked
                )
                samples = sample_tokens(states, self.language.weight, self.language.bias)
                replaced[f"{side}_ids"] = chunk.texts.ids.masked_scatter(masked, samples)
                hidden.append(states)
                labels.append(chunk.texts.ids[masked])
            filled.append(replace(chunk, **replaced))
        if not self.train_along:
            return filled, None
        own = Labelled(torch.cat(hidden), torch.cat(labels))
        return filled, LabelledHead(own, self.language.weight, self.language.bias)

    def _hidden(self, texts: Texts, masked: Tensor) -> Float[Tensor, "masked dim"]:
        with torch.set_grad_enabled(self.train_along and torch.is_grad_enabled()):
            states = self.encoder.states(texts, packed=self.encoder.packs(texts))
            return self.language.transform(states[masked])


@torch.no_grad()
def sample_tokens(
    hidden: Float[Tensor, "tokens dim"],
    weight: Float[Tensor, "vocabulary dim"],
    bias: Float[Tensor, " vocabulary"] | None,
) -> Int64[Tensor, " tokens"]:
    """Draw a token from the softmax of each row's logits in float32, a tile of rows at a time."""
    samples = [torch.empty(0, dtype=torch.int64, device=hidden.device)]
    shift = None if bias is None else bias.float()
    with torch.autocast(hidden.device.type, enabled=False):
        for rows in torch.split(hidden.float(), max(1, TILE // len(weight))):
            logits = torch.nn.functional.linear(rows, weight.float(), shift)
            samples.append(torch.multinomial(logits.softmax(1), 1)[:, 0])
    return torch.cat(samples)
