"""From a recipe's section to a masked autoencoder, and from a trained one to folders."""

from pathlib import Path

from embedtrain.contract.texts import Contract
from embedtrain.errors import UserError
from embedtrain.models.backbone.files import write_weights
from embedtrain.models.backbone.language_head import (
    MaskedLanguageModel,
    build_masked_language_model,
    load_masked_language_model,
)
from embedtrain.models.backbone.loading import preferred_device
from embedtrain.models.backbone.pretrained import quiet_transformers
from embedtrain.models.build import Accelerator, save_dense
from embedtrain.models.pretraining.decoding import DECODER_FILE, DecoderConfig
from embedtrain.models.pretraining.generator import Generator, GeneratorConfig
from embedtrain.models.pretraining.masked_autoencoder import (
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
)
from embedtrain.pretrain_types import Computation


def build_masked_autoencoder(
    config: MaskedAutoencoderConfig,
    computation: Computation,
    length: int,
    accelerator: Accelerator = "auto",
) -> MaskedAutoencoder:
    """Load or make the encoder that a recipe names and put around it what the objective needs.

    Raises:
        UserError: If a part is missing, does not fit, or would not be used.
    """
    device = preferred_device(accelerator)
    _refuse_unused(config, computation)
    if config.architecture is None:
        language = load_masked_language_model(config.backbone, config)
    else:
        language = build_masked_language_model(config.backbone, config.architecture)
    _check_length(language, length)
    if config.mask_token is not None:
        _set_mask_token(language, config.mask_token)
    contract = Contract(
        pooling=config.pooling,
        similarity="cosine",
        query_prompt="",
        document_prompt="",
        query_length=length,
        document_length=length,
    )
    generator = None
    if config.generator is not None:
        generator = _build_generator(config.generator, language, contract, config.backbone)
    parts = language, contract, computation, config.decoder, generator
    return MaskedAutoencoder(*parts, packing=config.packing).to(device)


def save_masked_autoencoder(model: MaskedAutoencoder, folder: Path, *, with_head: bool) -> None:
    """Write the encoder as an ordinary folder of transformers, with its language head if wanted.

    ``AutoModel``, sentence-transformers and a recipe's ``model.backbone`` load it either way.
    """
    save_dense(model.encoder, folder)
    if with_head:
        with quiet_transformers():
            model.language.model.save_pretrained(folder)


def save_decoder(model: MaskedAutoencoder, folder: Path) -> None:
    """Keep the decoder for pre-training that goes on from here; do nothing where there is none."""
    if model.decoder is None:
        return
    write_weights(folder / DECODER_FILE, model.decoder.state_dict())


def _refuse_unused(config: MaskedAutoencoderConfig, computation: Computation) -> None:
    """Refuse settings that this objective has no use for: nobody should believe that they did something."""
    if computation.generator and config.generator is None:
        raise UserError(
            "model.generator",
            "is missing; the objective fills masked places with its samples",
            cure="Write generator: {architecture: {...}} or {backbone: FOLDER, train: false}",
        )
    if config.generator is not None and not computation.generator:
        raise UserError("model.generator", "is of no use to this objective", cure="Leave it out")
    if config.decoder != DecoderConfig() and computation.decoder == "none":
        raise UserError("model.decoder", "is of no use to this objective", cure="Leave it out")
    decodes = computation.decoder != "none" or computation.bag_of_words or computation.generator
    partly = "lora" if config.lora else config.train and "train"
    if partly and decodes:
        raise UserError(
            f"model.{partly}",
            "goes with the objectives mlm and mntp only: others train the whole encoder",
            cure="Leave it out",
        )
    if config.architecture is not None and (config.attention or partly):
        raise UserError(
            "model.architecture",
            "starts from random weights, which must all be trained, in both directions",
            cure="Leave out model.attention, model.lora and model.train",
        )
    if config.architecture is not None and (config.num_layers or config.dropout is not None):
        raise UserError(
            "model.architecture",
            "already says how many layers and how much dropout there are",
            cure="Leave out model.num_layers and model.dropout",
        )


def _set_mask_token(language: MaskedLanguageModel, token: str) -> None:
    """Let a token that the tokenizer knows stand for hidden ones; its embedding learns to."""
    if token not in language.tokenizer.get_vocab():
        raise UserError(
            "model.mask_token",
            "is not in the tokenizer's vocabulary",
            got=token,
            cure="Choose a token that it knows and texts seldom hold, such as _",
        )
    language.tokenizer.mask_token = token


def _check_length(language: MaskedLanguageModel, length: int) -> None:
    limit = language.backbone.max_length
    if length > limit:
        raise UserError(
            "data.length",
            f"is more than the {limit} tokens that {language.path} has positions for",
            got=length,
            cure="Lower it",
        )


def _build_generator(
    config: GeneratorConfig, language: MaskedLanguageModel, contract: Contract, tokenizer_path: str
) -> Generator:
    if (config.backbone is None) == (config.architecture is None):
        raise UserError("model.generator", "needs either backbone or architecture", cure="Give one")
    if config.backbone is not None:
        small = load_masked_language_model(config.backbone)
    else:
        assert config.architecture is not None
        if not config.train:
            raise UserError(
                "model.generator",
                "would be random and never trained",
                cure="Set train: true or give a trained backbone",
            )
        small = build_masked_language_model(tokenizer_path, config.architecture)
    if small.tokenizer.get_vocab() != language.tokenizer.get_vocab():
        raise UserError(
            "model.generator",
            "has another vocabulary than the encoder",
            got=small.path,
            cure="Train both with one tokenizer",
        )
    _check_length(small, contract.document_length)
    return Generator(small, contract, train_along=config.train)
