"""What the decoder is given of a chunk of texts: one vector each, and what it may see of their tokens."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights
from embedtrain.models.backbone.fit import compare, shapes_of
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.pooling import positions
from embedtrain.models.pretraining.decoder import Decoder, visible_by_position
from embedtrain.packed import Texts
from embedtrain.pretrain_types import Computation, MaskedBatch
from embedtrain.section import Count, Section

DECODER_FILE = "decoder.safetensors"
DROPOUTS = ("hidden_dropout_prob", "mlp_dropout", "dropout")
"""What BERT and RoBERTa, ModernBERT, and DistilBERT call the dropout of states; the decoder takes the same."""


class DecoderConfig(Section):
    """The decoder, which is thrown away after pre-training (and kept apart to go on with)."""

    num_layers: Count | None = None
    """Null: 1 for the enhanced decoder, 2 for a plain one."""
    start: Literal["random", "last_layers"] | str = "random"
    """``last_layers`` copies the encoder's (BERT and RoBERTa); a run's ``decoder`` folder goes on with it."""


def build_decoder(
    config: DecoderConfig,
    language: MaskedLanguageModel,
    computation: Computation,
    num_positions: int,
) -> Decoder:
    """Build the decoder that an objective wants, as wide as the encoder."""
    settings, width = language.model.config, language.backbone.width
    absolute = language.has_positions
    places_known = absolute or computation.early_layer is not None
    inner = getattr(settings, "intermediate_size", None) if absolute else None
    enhanced = computation.decoder == "enhanced"
    decoder = Decoder(
        width,
        settings.num_attention_heads,
        inner or 4 * width,
        config.num_layers or (1 if enhanced else 2),
        next((getattr(settings, name) for name in DROPOUTS if hasattr(settings, name)), 0.0),
        0 if places_known else num_positions,
    )
    if config.start == "last_layers":
        decoder.copy_last_layers(language.layers)
    elif config.start != "random":
        load_decoder(decoder, Path(config.start))
    return decoder


def load_decoder(decoder: Decoder, folder: Path) -> None:
    """Load the weights that a run kept in ``folder``."""
    path = folder / DECODER_FILE
    if not path.is_file():
        raise UserError(
            "model.decoder.start",
            f"names no folder with a {DECODER_FILE}",
            got=str(folder),
            cure="Give random, last_layers or the decoder folder of a run",
        )
    weights, cure = read_weights(path), "Use the settings it was trained with, or random"
    place = f"model.decoder.start: {path}"
    compare(place, shapes_of(decoder.state_dict()), shapes_of(weights), cure=cure, exact=True)
    decoder.load_state_dict(weights)


def decode(
    decoder: Decoder,
    language: MaskedLanguageModel,
    computation: Computation,
    chunk: MaskedBatch,
    vectors: Float[Tensor, "texts dim"],
    early: Float[Tensor, "tokens dim"] | None,
) -> Float[Tensor, "labelled dim"]:
    """Rebuild the texts of a chunk from one vector each; return hidden states of the labelled tokens."""
    lengths = chunk.texts.lengths
    width = int(lengths.max())
    inside = torch.arange(width, device=lengths.device) < lengths[:, None]
    if computation.decoder == "enhanced":
        context = _with_vectors(_embed(decoder, language, chunk.texts), vectors, inside)
        draws = _padded(chunk.decoder_draws, inside)
        visible = visible_by_position(inside, draws, _padded(chunk.decoder_picks, inside))
        states = decoder.enhanced(
            _queries(decoder, language, computation, vectors, inside), context, visible
        )
    else:
        tokens = early
        if tokens is None:
            tokens = _embed(decoder, language, Texts(chunk.decoder_ids, lengths))
        states = decoder.plain(_with_vectors(tokens, vectors, inside), inside[:, None, :])
    wanted = torch.zeros_like(inside).masked_scatter(inside, decoder_labels(computation, chunk))
    return language.transform(states[wanted])


def _embed(
    decoder: Decoder, language: MaskedLanguageModel, texts: Texts
) -> Float[Tensor, "tokens dim"]:
    """Return the encoder's input embeddings, with the decoder's positions where those have none."""
    places = positions(texts.lengths)
    embedded = language.embed(texts.ids, places)
    table = decoder.positions
    return embedded if table is None else embedded + table(places)


def _queries(
    decoder: Decoder,
    language: MaskedLanguageModel,
    computation: Computation,
    vectors: Float[Tensor, "texts dim"],
    inside: Bool[Tensor, "texts width"],
) -> Float[Tensor, "texts width dim"]:
    """Return what the enhanced decoder knows of each place before it looks: the vector and the place."""
    num_texts, width = inside.shape
    places = torch.arange(width, device=inside.device)
    table = decoder.positions
    if computation.query_norm:
        repeated = vectors.repeat_interleave(width, 0)
        everywhere = places.repeat(num_texts)
        queries = language.embed_vectors(repeated, everywhere)
        queries = queries if table is None else queries + table(everywhere)
        return queries.view(num_texts, width, -1)
    added = language.position_vectors(places) if table is None else table(places)
    return vectors[:, None] + added


def _with_vectors(
    tokens: Float[Tensor, "tokens dim"],
    vectors: Float[Tensor, "texts dim"],
    inside: Bool[Tensor, "texts width"],
) -> Float[Tensor, "texts width dim"]:
    """Pad token states and put each text's vector in the place of its first token."""
    grid = _padded(tokens, inside)
    return torch.cat([vectors[:, None].to(grid.dtype), grid[:, 1:]], 1)


def decoder_labels(computation: Computation, chunk: MaskedBatch) -> Bool[Tensor, " tokens"]:
    """Return which tokens the decoder is to rebuild."""
    if computation.decode_all_tokens:
        return ~chunk.special
    early = computation.early_layer is not None
    return chunk.encoder_masked if early else chunk.decoder_masked


def _padded(values: Tensor, inside: Bool[Tensor, "texts width"]) -> Tensor:
    """Lay packed rows out in a grid filled with zeros."""
    grid = values.new_zeros(*inside.shape, *values.shape[1:])
    return grid.index_put((inside,), values)
