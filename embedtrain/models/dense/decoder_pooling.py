"""Pooling by T5's decoder: the first thing it would say of a text, before it is made a word.

The decoder is given its start token alone and looks at all states of the encoder; its one state is the vector. Only
the row of that token is needed of the table of words, and no text holds it, so the part keeps a row of its own.

Source: Ni et al. (2021), https://arxiv.org/abs/2108.08877 (Sentence-T5, the encoder-decoder with its first output).
"""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.fit import judge, refuse_not_finite, weight_files
from embedtrain.models.pooling import grid_places, in_grid, widen
from embedtrain.models.saved_part import SavedPart
from embedtrain.outside import reading
from embedtrain.packed import Texts, upload
from embedtrain.section import Count, Section

FAMILIES = ("t5", "mt5", "umt5")
DECODER, START = "decoder.", "embed_tokens.weight"


class DecoderPoolingConfig(Section):
    """Pool by the first output of the decoder of a T5, mT5 or UMT5."""

    num_layers: Count | None = None
    """Layers of the decoder, from its first; null keeps all."""


def first_output(
    decoder: Any,  # noqa: ANN401 - transformers is untyped
    states: Float[Tensor, "tokens width"],
    texts: Texts,
    start: int,
) -> Float[Tensor, "texts width"]:
    """Return the first state of a decoder that looks at all states of a text, in float32 at least.

    Args:
        decoder: A stack of transformers.
        states: The encoder's, of all tokens, text by text.
        texts: Whose states they are.
        start: The entry of its table that the decoder is given.
    """
    width, device = int(texts.sizes.max()), states.device
    places = upload(grid_places(texts.sizes, width), device)
    seen = torch.arange(width, device=device) < texts.lengths[:, None]
    found: Tensor = decoder(
        input_ids=torch.full((len(texts), 1), start, dtype=torch.int64, device=device),
        encoder_hidden_states=in_grid(states, places, seen.shape),
        encoder_attention_mask=seen.long(),
        use_cache=False,
    ).last_hidden_state
    return widen(found[:, 0])


class DecoderPooling(SavedPart):
    """The decoder that belongs to an encoder, with a table of one word: the token that it starts with.

    Args:
        encoder: The backbone: transformers' encoder model of the family.
        config: How many layers are kept.

    Raises:
        UserError: If the family has no such decoder, or fewer layers.
    """

    weights_file = "decoder_pooling.safetensors"

    def __init__(self, encoder: Any, config: DecoderPoolingConfig) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        whole = encoder.config
        if whole.model_type not in FAMILIES:
            raise UserError(
                "model.decoder_pooling",
                "is for backbones with a decoder of T5's kind",
                got=whole.model_type,
                cure="Choose T5, mT5 or UMT5",
            )
        number = config.num_layers or whole.num_decoder_layers
        if number > whole.num_decoder_layers:
            raise UserError(
                "model.decoder_pooling.num_layers",
                f"is more than the {whole.num_decoder_layers} layers of the decoder",
                got=number,
                cure="Lower it",
            )
        self.config = config.model_copy(update={"num_layers": number})
        self.start = int(whole.decoder_start_token_id or 0)
        own = copy.deepcopy(whole)
        own.is_decoder, own.num_layers, own.vocab_size, own.use_cache = True, number, 1, False
        own._attn_implementation = "sdpa"  # noqa: SLF001 - no setter; the encoder's may change
        self.decoder = type(encoder.encoder)(own)

    def forward(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts width"]:
        """Return one vector per text, in float32 at least; it is not normalised."""
        return first_output(self.decoder, states, texts, 0)  # the one row of its table

    def load(self, folder: Path) -> "DecoderPooling":
        """Read the part's own weights, or those of the whole model that the backbone was taken from.

        Raises:
            UserError: If the folder has neither, or they are of another size.
        """
        if (folder / self.weights_file).is_file():
            return super().load(folder)
        found = self._of_whole_model(folder)
        wanted = self.decoder.state_dict()
        judge(
            folder,
            missing=wanted.keys() - found.keys(),
            other={
                name: (tuple(found[name].shape), tuple(value.shape))
                for name, value in wanted.items()
                if name in found and found[name].shape != value.shape
            },
            cure="Take a folder of the whole T5, decoder included",
        )
        refuse_not_finite(folder, found.items())
        self.decoder.load_state_dict({name: found[name].float() for name in wanted})
        return self

    def _of_whole_model(self, folder: Path) -> dict[str, Tensor]:
        """Return the decoder's tensors and the row of its start token."""
        found: dict[str, Tensor] = {}
        for path in weight_files(folder):
            with reading(path), safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    if name.startswith(DECODER) and not name.endswith(START):
                        found[name.removeprefix(DECODER)] = file.get_tensor(name)
                    elif name in ("shared.weight", "encoder.embed_tokens.weight"):
                        rows = file.get_slice(name)
                        found[START] = rows[self.start : self.start + 1]
        return found
