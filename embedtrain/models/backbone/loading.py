"""Load encoders and decoder models from transformers, in the form that a recipe asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from transformers import AutoModel

from embedtrain.errors import UserError
from embedtrain.models.backbone.biases import train_biases_only
from embedtrain.models.backbone.families import (
    configs_of,
    encoder_only,
    keep_in_config,
    loader_for,
    look,
    refuse_images,
)
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.fractional_positions import is_between, restore_between
from embedtrain.models.backbone.lora import (
    LoraConfig,
    add_lora,
    keep_differentiable,
    loading_options,
)
from embedtrain.models.backbone.pretrained import (
    HEADS,
    loading,
    read_config,
    read_model,
    read_tokenizer,
    refuse_other_vocabulary,
    try_out,
)
from embedtrain.section import Count, Section

Attention = Literal["causal", "bidirectional"]
Packing = Literal["auto", "packed", "padded"]

DROPOUT_FIELDS = (
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "classifier_dropout",
    "cls_dropout",
    "dropout",
    "dropout_rate",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "mlp_dropout",
    "pooler_dropout",
    "resid_pdrop",
    "seq_classif_dropout",
)
"""What the families of transformers call their dropout ratios."""


class BackboneConfig(Section):
    """How a backbone is loaded and run: what every section ``model:`` of a recipe has."""

    num_layers: Count | None = None
    """Keep only the first layers of the backbone; null keeps all."""
    attention: Attention | None = None
    """Let a decoder's tokens look at all others (bidirectional) or at earlier ones; null: as it was trained."""
    lora: LoraConfig | None = None
    """Train low-rank adapters and freeze the backbone; exports hold the sum of both."""
    train: Literal["biases"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """``biases`` trains the backbone's biases and what is put behind it, and freezes the rest (BitFit). A list trains
    what it names: ``layers.9-11`` (counted from 0), ``pooling`` (all behind the backbone), ``biases``, or a part of
    weights' names such as ``embeddings``. Null trains all."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Replaces the backbone's dropout ratios; null keeps them. Attention dropout is slow on CPU."""
    packing: Packing = "auto"
    """``packed`` computes no padding, ``padded`` pads each chunk, ``auto`` packs on CPU and CUDA where it is exact."""

    @model_validator(mode="after")
    def _adapters_or_biases(self) -> "BackboneConfig":
        if self.lora is not None and self.train is not None:
            raise ValueError("lora and train say what is trained: leave one of them out")
        return self


def freeze_backbone(backbone: Any, settings: BackboneConfig) -> None:  # noqa: ANN401
    """Leave of a backbone only that to train which a recipe asks for, in place; adapters are put in."""
    if settings.lora is not None:
        add_lora(backbone, settings.lora)
    if settings.train == "biases":  # what a list names may stand behind the backbone
        train_biases_only(backbone, backbone.config.model_type)


AS_IT_IS = BackboneConfig()


@dataclass(frozen=True)
class Backbone:
    """A transformer without a head, its tokenizer, and where they came from."""

    model: Any
    tokenizer: Any
    path: str
    folder: Path

    @property
    def width(self) -> int:
        """Dimension of the token states."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens the position embeddings allow."""
        return max_length(self.model.config)


def preferred_device(accelerator: Literal["auto", "cpu", "gpu"] = "auto") -> torch.device:
    """Return the device to compute on: a CUDA GPU where there is one, unless the CPU is asked for.

    Raises:
        UserError: If a GPU is asked for and torch sees none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError(
            "trainer.accelerator", "asks for a GPU and torch sees none", cure="Use auto"
        )
    use_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def max_length(config: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the longest input, in tokens, that a transformers config allows."""
    limit = getattr(config, "max_position_embeddings", None) or 1_000_000
    # RoBERTa and kin count positions from padding_idx + 1.
    return limit - position_offset(config) if limit > 0 else 1_000_000


def position_offset(config: Any) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the position id of a text's first token: RoBERTa and kin start after the padding id."""
    families = ("roberta", "camembert", "xlm-roberta", "xmod", "longformer", "mpnet")
    return config.pad_token_id + 1 if config.model_type.startswith(families) else 0


def load_backbone(
    path: str,
    settings: BackboneConfig = AS_IT_IS,
    *,
    trust_remote_code: bool = False,
    loader: Any = AutoModel,  # noqa: ANN401 - transformers is untyped
    optional: Callable[[str], bool] | None = None,
    adjust: Callable[[Any], None] | None = None,
    with_head: bool = False,
) -> Backbone:
    """Load a backbone in float32 from a Hub id, a local folder or ``package:NAME/FOLDER``.

    Args:
        path: Where the model is. A sentence-transformers folder works: its transformer is at the root.
        settings: Layers, dropout, attention and adapters.
        trust_remote_code: Run modelling code from the repository. Only if the user asked for it.
        loader: Which of transformers' Auto classes loads it; one with a head gives it with its head.
        optional: Names of weights that may start at random; None: a pooler's, which nothing uses.
        adjust: Changes the config before anything is built by it.
        with_head: The head computes as well: its pooler stays, and what is frozen is left to the caller.

    Raises:
        UserError: If the model, its tokenizer or a weight that it computes with is missing or broken.
    """
    attention, lora = settings.attention, settings.lora
    folder = fetch(path, with_code=trust_remote_code)
    config = read_config(folder, trust_remote_code=trust_remote_code)
    loader = loader_for(config, loader)
    refuse_images(config)
    encoder_only(config, loader)
    config = _shape_config(path, folder, config, settings)
    if adjust is not None:
        adjust(config)
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(path, "has no fast tokenizer", cure="Save one as tokenizer.json")
    options = loading_options(lora) | {"trust_remote_code": trust_remote_code}
    cut = settings.num_layers is not None
    model = read_model(
        *(folder, config, loader),
        optional=optional or (lambda name: name.startswith("pooler.")),
        expected=lambda name: cut or name.startswith(HEADS) or is_between(name),
        **options,
    )
    restore_between(model, folder)
    refuse_other_vocabulary(folder, tokenizer, model)
    if tokenizer.pad_token is None:
        # Decoders often have none. Nothing here depends on which token it is, but readers of exports do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if getattr(model, "pooler", None) is not None and not with_head:
        model.pooler = None  # never used here, and an unused parameter stops DDP
    keep_differentiable(model)
    try_out(folder, tokenizer, model)
    if attention is not None:
        _check_attention(model, attention)
    if not with_head:
        freeze_backbone(model, settings)
    return Backbone(model, tokenizer, path, folder)


def ensure_end_token(tokenizer: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Make the tokenizer itself end every text with its EOS token, so that exports do it as well.

    Pooling of the last token is meaningless without it, and a forgotten EOS is a common cause of poor
    scores with decoder backbones.
    """
    if tokenizer.eos_token is None:
        raise UserError(
            "model.pooling",
            "last_token needs an EOS token and the tokenizer has none",
            cure="Set eos_token in the tokenizer or choose another pooling",
        )
    if tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id:
        return
    from tokenizers.processors import Sequence, TemplateProcessing

    end = TemplateProcessing(
        single=f"$A {tokenizer.eos_token}",
        special_tokens=[(tokenizer.eos_token, tokenizer.eos_token_id)],
    )
    before = tokenizer.backend_tokenizer.post_processor
    tokenizer.backend_tokenizer.post_processor = Sequence([before, end]) if before else end


def _shape_config(path: str, folder: Path, config: Any, settings: BackboneConfig) -> Any:  # noqa: ANN401
    """Return a config with what a recipe asks for."""
    num_layers = settings.num_layers
    with loading(folder / "config.json"):
        max_length(config)  # a config without what it needs is refused here
        if num_layers is not None and num_layers > config.num_hidden_layers:
            raise UserError(
                "model.num_layers",
                f"asks for more layers than {path} has ({config.num_hidden_layers})",
                got=num_layers,
                cure="Lower it or leave it out",
            )
    if num_layers is not None:
        for one in configs_of(config):
            keep_in_config(one, range(num_layers))
    if settings.attention is not None:
        config = look(config, causal=settings.attention == "causal")
    if settings.dropout is not None:
        for one in configs_of(config):
            for name in DROPOUT_FIELDS:
                if isinstance(getattr(one, name, None), float | int):
                    setattr(one, name, settings.dropout)
    return config


@torch.no_grad()
def _check_attention(model: Any, wanted: Attention) -> None:  # noqa: ANN401 - transformers is untyped
    """Change the last of some tokens: only a causal model's first state stays the same."""
    ids = torch.arange(1, 6, device=model.device)[None]
    changed = ids.clone()
    changed[0, -1] = 0
    training = model.training
    model.eval()
    first, other = (
        model.base_model(input_ids=x, use_cache=False).last_hidden_state[0, 0]
        for x in (ids, changed)
    )
    model.train(training)
    found = "causal" if torch.equal(first, other) else "bidirectional"
    if found != wanted:
        raise UserError(
            "model.attention",
            f"is not offered by the family {model.config.model_type}, which stays {found}",
            got=wanted,
            cure="Leave it out or choose another backbone",
        )
