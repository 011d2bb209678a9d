"""What the decoder is given of a chunk of texts: one vector each, and what it may see of their tokens."""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.models.backbone.files import read_weights
from embedtrain.models.backbone.fit import compare, shapes_of
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.pooling import grid_places, in_grid, positions
from embedtrain.models.pretraining.decoder import Decoder, visible_by_position
from embedtrain.packed import Texts, upload
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
    behind_layers = computation.clean_pass or computation.early_layer is not None
    places_known = absolute or behind_layers
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
    texts, device = chunk.texts, chunk.texts.ids.device
    width = int(texts.sizes.max())
    inside = torch.arange(width, device=device) < texts.lengths[:, None]
    in_row = upload(grid_places(texts.sizes, width), device)
    if computation.decoder == "enhanced":
        embedded = _embed(decoder, language, texts)
        context = _with_vectors(embedded, vectors, in_row, inside.shape)
        draws, picks = (
            in_grid(values, in_row, inside.shape)
            for values in (chunk.decoder_draws, chunk.decoder_picks)
        )
        visible = visible_by_position(inside, draws, picks)
        states = decoder.enhanced(
            _queries(decoder, language, computation, vectors, inside), context, visible
        )
    else:
        tokens = early
        if tokens is None:
            hidden = Texts(chunk.decoder_ids, texts.lengths, texts.sizes)
            tokens = _embed(decoder, language, hidden)
        grid = _with_vectors(tokens, vectors, in_row, inside.shape)
        states = decoder.plain(grid, inside[:, None, :])
    wanted = states.flatten(0, 1)[in_row[decoder_labels(computation, chunk)]]
    return wanted if computation.clean_pass else language.transform(wanted)


def _embed(
    decoder: Decoder, language: MaskedLanguageModel, texts: Texts
) -> Float[Tensor, "tokens dim"]:
    """Return the encoder's input embeddings, with the decoder's positions where those have none."""
    places = positions(texts.lengths, len(texts.ids))
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
    in_row: Int64[Tensor, " tokens"],
    shape: tuple[int, ...],
) -> Float[Tensor, "texts width dim"]:
    """Pad token states and put each text's vector in the place of its first token."""
    grid = in_grid(tokens, in_row, shape)
    return torch.cat([vectors[:, None].to(grid.dtype), grid[:, 1:]], 1)


def decoder_labels(computation: Computation, chunk: MaskedBatch) -> Int64[Tensor, " labelled"]:
    """Return the places of the tokens that the decoder is to rebuild."""
    host = chunk.on_host
    early = computation.clean_pass or computation.early_layer is not None
    wanted = host.encoder_masked if early else host.decoder_masked
    if computation.decode_all_tokens:
        wanted = ~host.special
    return upload(wanted.nonzero()[:, 0], chunk.texts.ids.device)
