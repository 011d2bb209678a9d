"""Tiny masked autoencoders and masked batches, made in memory."""

import torch

from embedtrain.data.pretraining.masking import (
    Words,
    corrupt,
    extend_mask,
    mask_words,
    mask_words_independently,
)
from embedtrain.models.backbone.language_head import Architecture
from embedtrain.models.pretraining.folder import build_masked_autoencoder
from embedtrain.models.pretraining.generator import GeneratorConfig
from embedtrain.models.pretraining.masked_autoencoder import (
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
)
from embedtrain.objectives.pretrain import PRETRAIN_OBJECTIVES
from embedtrain.packed import Texts
from embedtrain.pretrain_types import MaskedBatch, Masking

CLS, SEP, MASK = 2, 3, 4
FIRST_WORD = 5


def architecture(family: str = "bert", **settings: object) -> Architecture:
    sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "max_length": 64, "dropout": 0.0}
    return Architecture.model_validate({"family": family} | sizes | settings)


def autoencoder(
    tokenizer: str,
    objective: str,
    *,
    family: str = "bert",
    length: int = 24,
    double: bool = False,
    objective_settings: dict[str, object] | None = None,
    dropout: float = 0.0,
    **settings: object,
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    chosen = PRETRAIN_OBJECTIVES[objective].model_validate(
        {"name": objective} | (objective_settings or {})
    )
    if chosen.computation.generator and "generator" not in settings:
        small = architecture(num_layers=1, width=16, num_heads=2)
        settings["generator"] = GeneratorConfig(architecture=small)
    config = MaskedAutoencoderConfig(
        kind="masked_autoencoder",
        backbone=tokenizer,
        architecture=architecture(family, dropout=dropout),
        **settings,
    )
    model = build_masked_autoencoder(config, chosen.computation, length)
    # Larger than the usual start, so that attention and vectors make a difference.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(5)
    return (model.double() if double else model).eval()


def masked_batch(
    masking: Masking, lengths: list[int], *, vocabulary: int = 60, seed: int = 0
) -> MaskedBatch:
    """Random words of one token between CLS and SEP; ``lengths`` count both."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    ids = torch.randint(FIRST_WORD, vocabulary, (total,), generator=generator)
    ends = torch.tensor(lengths).cumsum(0)
    ids[ends - 1], ids[ends - torch.tensor(lengths)] = SEP, CLS
    texts = Texts(ids, torch.tensor(lengths))
    special = (ids == CLS) | (ids == SEP)
    words = Words.find(texts, ~special, special)
    ordinary = torch.arange(FIRST_WORD, vocabulary)
    encoder_masked = mask_words(words, masking.encoder_ratio, generator)[:, 0]
    decoder_masked = mask_words(words, masking.decoder_ratio, generator)[:, 0]
    if masking.superset:
        decoder_masked = extend_mask(
            words, encoder_masked, masking.encoder_ratio, masking.decoder_ratio, generator
        )
    draws, places = torch.zeros(total, 0, dtype=torch.bool), torch.zeros(total, dtype=torch.int64)
    if masking.by_position:
        decoder_masked = torch.zeros_like(special)
        longest = max(lengths)
        draws = mask_words_independently(words, masking.decoder_ratio, generator, num_draws=longest)
        places = torch.cat([torch.arange(length) for length in lengths])
    partners = torch.arange(len(lengths))
    return MaskedBatch(
        texts=texts,
        special=special,
        encoder_ids=corrupt(ids, encoder_masked, MASK, ordinary, generator),
        encoder_masked=encoder_masked,
        decoder_ids=corrupt(ids, decoder_masked, MASK, ordinary, generator),
        decoder_masked=decoder_masked,
        decoder_draws=draws,
        decoder_picks=places,
        partners=partners ^ 1 if masking.pairs else partners,
    )


def objective_of(name: str, **settings: object):
    return PRETRAIN_OBJECTIVES[name].model_validate({"name": name} | settings)
