"""An encoder with its masked-language head, taken apart: token states, the head's transform, the matrix.

The head's logits are ``transform(states) @ weight.T + bias``; they are never computed here, so that losses
can do so in tiles, on labelled tokens only. BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT and ModernBERT are
known, and decoders, whose head is the matrix alone; each family names its parts differently, and this file
alone knows how.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.fit import read_headers
from embedtrain.models.backbone.folder_files import BackboneFile, read_form
from embedtrain.models.backbone.loading import (
    AS_IT_IS,
    Backbone,
    BackboneConfig,
    load_backbone,
    position_offset,
)
from embedtrain.models.backbone.pretrained import HEADS, loading, read_tokenizer
from embedtrain.section import Count, Section

logger = logging.getLogger(__name__)


class Architecture(Section):
    """An encoder from scratch: random weights, the vocabulary of the tokenizer."""

    family: Literal["bert", "roberta", "modernbert"] = "bert"
    """BERT and RoBERTa learn absolute positions, ModernBERT turns queries and keys (RoPE)."""
    num_layers: Count = 4
    width: Count = 256
    """Dimension of the token states."""
    num_heads: Count = 4
    inner_width: Count | None = None
    """Of the feed-forward layers; null is four times the width, for ModernBERT's gated ones 8/3."""
    max_length: Count = 512
    """Tokens there are positions for."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of states; attention has none, which is slow on CPU."""


class MaskedLanguageModel(nn.Module):
    """An encoder and its masked-language head.

    Args:
        model: A ``...ForMaskedLM`` of transformers.
        tokenizer: Its tokenizer.
        path: Where it came from, for errors.
        folder: Where its files are, if elsewhere.

    Raises:
        UserError: If the family's head is not known here.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers is untyped
        tokenizer: Any,  # noqa: ANN401
        path: str,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        family = model.config.model_type
        if family not in _TRANSFORMS:
            raise UserError(
                path,
                "has a masked-language head of an unknown kind",
                got=family,
                cure=f"Use one of {', '.join(sorted(_TRANSFORMS))}",
            )
        self.model: Any = model
        self.tokenizer = tokenizer
        self.path = path
        self.folder = folder or Path(path)

    @property
    def backbone(self) -> Backbone:
        """The encoder without the head; it shares the weights."""
        return Backbone(self.model.base_model, self.tokenizer, self.path, self.folder)

    @property
    def weight(self) -> Float[Tensor, "vocabulary dim"]:
        """The output matrix, usually the input embeddings."""
        matrix: Tensor = self.model.get_output_embeddings().weight
        return matrix

    @property
    def bias(self) -> Float[Tensor, " vocabulary"] | None:
        """Added to the logits."""
        offset: Tensor | None = self.model.get_output_embeddings().bias
        return offset

    def transform(self, states: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
        """Return what the head multiplies by the output matrix."""
        transformed: Tensor = _TRANSFORMS[self.model.config.model_type](self.model, states)
        return transformed

    def freeze_transform(self) -> None:
        """Train none of the weights that only :meth:`transform` uses, for those who do without it."""
        used = [*self.model.base_model.parameters(), self.weight, self.bias]
        known = {id(one) for one in used}
        for parameter in self.model.parameters():
            if id(parameter) not in known:
                parameter.requires_grad_(False)

    def embed(
        self, ids: Int64[Tensor, " tokens"], places: Int64[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens dim"]:
        """Return the encoder's own input embeddings: words, positions if it has any, norm, dropout."""
        return self._embedded(places, input_ids=ids[None])

    def embed_vectors(
        self, vectors: Float[Tensor, "tokens dim"], places: Int64[Tensor, " tokens"]
    ) -> Float[Tensor, "tokens dim"]:
        """Return the input embeddings with ``vectors`` in the place of words."""
        return self._embedded(places, input_ids=None, inputs_embeds=vectors[None])

    def _embedded(self, places: Tensor, **words: Tensor | None) -> Tensor:
        if self.has_positions:
            words["position_ids"] = self._position_ids(places)
        embedded: Tensor = self.model.base_model.embeddings(**words)[0]
        return embedded

    @property
    def has_positions(self) -> bool:
        """Whether the input embeddings hold learned positions; rotary ones do not."""
        return hasattr(self.model.base_model.embeddings, "position_embeddings")

    def position_vectors(self, places: Int64[Tensor, " tokens"]) -> Float[Tensor, "tokens dim"]:
        """Return the learned positions of the input embeddings."""
        vectors: Tensor = self.model.base_model.embeddings.position_embeddings(
            self._position_ids(places)[0]
        )
        return vectors

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder's layers."""
        base = self.model.base_model
        found: nn.ModuleList = next(
            getattr(owner, name)
            for owner in (base, getattr(base, "encoder", None), getattr(base, "transformer", None))
            for name in ("layers", "layer")
            if hasattr(owner, name)
        )
        return found

    def _position_ids(self, places: Tensor) -> Tensor:
        return (places + position_offset(self.model.config))[None]


def load_masked_language_model(
    path: str, settings: BackboneConfig = AS_IT_IS
) -> MaskedLanguageModel:
    """Load an encoder or decoder with its head; a folder without one gets a new one, which is logged."""
    folder = fetch(path)
    family = read_form(folder / "config.json", BackboneFile).model_type
    loader = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    fresh: list[str] = []

    def optional(name: str) -> bool:
        """Whether a weight may start at random: all of a head that is missing as a whole."""
        if headless and name.startswith(HEADS):
            fresh.append(name)
        return headless and name.startswith(HEADS)

    headless = family in DECODERS or not has_language_head(folder)
    backbone = load_backbone(path, settings, loader=loader, optional=optional)
    if fresh:
        logger.warning("%s has no masked-language head; it starts with random weights", path)
    model = MaskedLanguageModel(backbone.model, backbone.tokenizer, path, backbone.folder)
    rows, known = len(model.weight), model.model.get_input_embeddings().weight.shape[0]
    if rows != known or rows < len(model.tokenizer):
        raise UserError(
            path,
            f"has a head for {rows} tokens, embeddings of {known} and a tokenizer of {len(model.tokenizer)}",
            cure="Take all three from one place",
        )
    return model


def build_masked_language_model(
    tokenizer_path: str, architecture: Architecture
) -> MaskedLanguageModel:
    """Build an encoder with random weights around a tokenizer.

    Raises:
        UserError: If the tokenizer cannot be loaded or the sizes do not fit together.
    """
    folder = Path(tokenizer_path).expanduser()
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            "model.backbone",
            "names no folder with a tokenizer.json, which model.architecture builds on",
            got=tokenizer_path,
            cure="Train one with `embedtrain tokenizer`",
        )
    if architecture.width % architecture.num_heads:
        raise UserError(
            "model.architecture.width",
            f"cannot be shared among {architecture.num_heads} heads",
            got=architecture.width,
            cure="Choose a multiple",
        )
    tokenizer = read_tokenizer(folder)
    with loading(folder):
        config = AutoConfig.for_model(
            architecture.family, **_config_fields(architecture, tokenizer)
        )
        model = AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")
    return MaskedLanguageModel(model, tokenizer, tokenizer_path)


def _config_fields(architecture: Architecture, tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401
    width, dropout = architecture.width, architecture.dropout
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "intermediate_size": architecture.inner_width or 4 * width,
        "max_position_embeddings": architecture.max_length,
        "pad_token_id": tokenizer.pad_token_id or 0,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    if architecture.family == "modernbert":
        fields["intermediate_size"] = architecture.inner_width or 8 * width // 3
        return fields | {"embedding_dropout": dropout, "mlp_dropout": dropout}
    if architecture.family == "roberta":
        fields["max_position_embeddings"] += fields["pad_token_id"] + 1
        fields["type_vocab_size"] = 1
    return fields | {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": 0.0}


def has_language_head(folder: Path) -> bool:
    """Whether the weights of a folder hold a masked-language head."""
    marks = ("cls.predictions.transform.", "lm_head.dense.", "head.dense.", "vocab_transform.")
    return any(name.startswith(marks) for name in read_headers(folder))


def _roberta_transform(model: Any, states: Tensor) -> Tensor:  # noqa: ANN401
    head = model.lm_head
    normed: Tensor = head.layer_norm(F.gelu(head.dense(states)))
    return normed


DECODERS = ("gemma", "llama", "mistral", "qwen2", "qwen3")
"""Families whose logits are the states times the matrix, nothing between and nothing after."""

_TRANSFORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bert": lambda model, states: model.cls.predictions.transform(states),
    "modernbert": lambda model, states: model.head(states),
    "roberta": _roberta_transform,
    "xlm-roberta": _roberta_transform,
    "camembert": _roberta_transform,
    "distilbert": lambda model, states: model.vocab_layer_norm(
        model.activation(model.vocab_transform(states))
    ),
    **dict.fromkeys(DECODERS, lambda _, states: states),
}
