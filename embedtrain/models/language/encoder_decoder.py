"""An encoder-decoder (T5) that reads and never writes: the logits of the first word of its answer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedtrain.models.backbone.families import start_of
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.loading import preferred_device
from embedtrain.models.backbone.pretrained import (
    read_config,
    read_model,
    read_tokenizer,
    refuse_other_vocabulary,
)
from embedtrain.models.language.model import TYPES
from embedtrain.models.pooling import grid_places, in_grid
from embedtrain.packed import Texts
from embedtrain.precision import Chosen, Precision, choose


class EncoderDecoder:
    """The weights of an encoder-decoder and its tokenizer.

    Args:
        path: A folder or a Hub id.
        precision: Of the weights.

    Raises:
        UserError: If it is no encoder-decoder, or does not say with which token an answer starts.
    """

    def __init__(self, path: str, *, precision: Precision = "auto") -> None:
        from transformers import AutoModelForSeq2SeqLM

        self.path = path
        self.device = preferred_device("auto")
        self.precision: Chosen = choose(precision, self.device.type)
        folder = fetch(path)
        config = read_config(folder)
        self.tokenizer = read_tokenizer(folder)
        model = read_model(folder, config, AutoModelForSeq2SeqLM, dtype=TYPES[self.precision])
        refuse_other_vocabulary(folder, self.tokenizer, model)
        self.model: Any = model.requires_grad_(False).to(self.device).eval()
        self.start = start_of(config, path)

    @torch.no_grad()
    def first_logits(self, texts: Texts) -> Float[Tensor, "texts vocabulary"]:
        """Return the logits of the first word of the answer to each text, in float32 at least; the texts are padded."""
        width = int(texts.sizes.max())
        seen = torch.arange(width) < texts.on_host.lengths[:, None]
        inside = grid_places(texts.sizes, width)
        ids = in_grid(texts.on_host.ids, inside, seen.shape, self.tokenizer.pad_token_id or 0)
        start = torch.full((len(texts), 1), self.start, dtype=torch.int64)
        logits: Tensor = self.model(
            input_ids=ids.to(self.device),
            attention_mask=seen.long().to(self.device),
            decoder_input_ids=start.to(self.device),
            use_cache=False,
        ).logits[:, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu()


def is_encoder_decoder(architectures: Sequence[str] | None) -> bool:
    """Whether a ``config.json`` names an encoder-decoder that writes."""
    return any(name.endswith("ForConditionalGeneration") for name in architectures or ())
