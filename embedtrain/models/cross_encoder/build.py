"""From a config or a folder to a cross-encoder, and back to a folder."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.pairs import PairParts
from embedtrain.errors import UserError
from embedtrain.models.backbone.families import is_whole
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.loading import (
    Backbone,
    Packing,
    freeze_backbone,
    load_backbone,
    preferred_device,
)
from embedtrain.models.backbone.pretrained import loading, quiet_transformers, read_config
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.answers import (
    AnswerHead,
    chat_template,
    write_answers,
)
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel, Head
from embedtrain.models.cross_encoder.first_word import FirstWordHead
from embedtrain.models.cross_encoder.head import FIRST, LAST, ClassifierHead, keep_one_class
from embedtrain.models.cross_encoder.resolving import (
    has_classifier,
    is_cross_encoder,
    parts_of,
    reads_last_token,
    resolve_pair_contract,
    scoring_of,
)
from embedtrain.models.dense.layout import read_contract, write_contract
from embedtrain.models.exits import check_exits

PROBE = ("a small house", "the house near a tree")
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
READER = "4.1.0"
"""The oldest sentence-transformers that reads what turns scores into output; no later one warns of it."""


def build_cross_encoder(config: CrossEncoderConfig, device: torch.device) -> CrossEncoderModel:
    """Load what a recipe or a folder names; a backbone without a head for classes gets a new one.

    Raises:
        UserError: If it has more classes than are wanted, or a head that is none of those known.
    """
    folder = fetch(config.backbone, with_code=config.trust_remote_code)
    if scoring_of(config, folder) == "yes_no":
        _refuse_encoder(read_config(folder))
        loaded = load_backbone(
            config.backbone,
            config,
            trust_remote_code=config.trust_remote_code,
            loader=AutoModelForSeq2SeqLM if is_whole(read_config(folder)) else AutoModelForCausalLM,
            with_head=True,
        )
        return _assembled(config, loaded, is_new=False).to(device)
    if config.lora is not None and config.lora.frozen == "nf4":
        raise UserError(
            "model.lora.frozen", "of a classifier cannot be nf4", got="nf4", cure="Use bfloat16"
        )
    is_new = not has_classifier(folder)

    loaded = load_backbone(
        config.backbone,
        config,
        trust_remote_code=config.trust_remote_code,
        loader=AutoModelForSequenceClassification,
        optional=_is_of_head if is_new else lambda _: False,
        adjust=partial(_settle_outputs, config, is_new=is_new),
        with_head=True,
    )
    if loaded.model.config.num_labels > 1 and not config.classes:
        keep_one_class(loaded.model)
    return _assembled(config, loaded, is_new=is_new).to(device)


def _refuse_encoder(config: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Refuse an encoder that was saved without the decoder that would answer."""
    names = [name for name in config.architectures or () if name.endswith("EncoderModel")]
    if names:
        raise UserError(
            "model.backbone",
            "is an encoder without a decoder, which answers nothing",
            got=names[0],
            cure="Name the whole model, such as T5ForConditionalGeneration, or leave scorer out",
        )


def load_cross_encoder(path: str, *, packing: Packing = "auto") -> CrossEncoderModel:
    """Load a sequence classifier, of whichever library, as it says.

    Raises:
        UserError: If it has no head for classes, or none that is known.
    """
    if not has_classifier(fetch(path)) and not is_cross_encoder(fetch(path)):
        raise UserError(
            path,
            "has no head for classes, so its scores would be random",
            cure="Give a sequence classifier, or train one with model.kind: cross_encoder",
        )
    folder = fetch(path)
    stated = read_contract(folder, PairContract) if is_cross_encoder(folder) else None
    classes = () if stated is None else stated.classes
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=path, packing=packing, classes=classes
    )
    return build_cross_encoder(config, preferred_device("auto"))


def save_cross_encoder(model: CrossEncoderModel, folder: Path) -> None:
    """Write a classifier that transformers, sentence-transformers and servers of rerankers load."""
    folder.mkdir(parents=True, exist_ok=True)
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    whole, contract = model.whole, model.contract
    if contract.scoring == "yes_no" and contract.answer_start is None:
        assert contract.template is not None
        model.tokenizer.chat_template = chat_template(contract.template)
        write_answers(folder, contract)
    if contract.answer_start is None:  # sentence-transformers scores by no encoder-decoder
        activation = SIGMOID if contract.says_probability else IDENTITY
        whole.config.sentence_transformers = {"activation_fn": activation, "version": READER}
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    model.tokenizer.model_max_length = contract.pair_length  # where readers look for it
    with quiet_transformers(), model.head.returned(whole):
        whole.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    write_contract(folder, "cross_encoder", contract)


def _settle_outputs(config: CrossEncoderConfig, settings: Any, *, is_new: bool) -> None:  # noqa: ANN401
    """Let a classifier have as many outputs as a recipe wants; refuse another number in one that is trained."""
    wanted = len(config.classes) or 1
    if is_new:
        settings.num_labels = wanted
    elif wanted == 1 and settings.num_labels > 2:
        raise UserError(
            config.backbone,
            "has more than two classes",
            got=settings.num_labels,
            cure="Give a model that scores relevance, or name the classes in model.classes",
        )
    elif wanted not in (1, settings.num_labels):
        raise UserError(
            "model.classes",
            f"are not the {settings.num_labels} that {config.backbone} tells apart",
            got=config.classes,
            cure="Name as many, or start from a backbone without a head",
        )
    if config.classes:
        settings.id2label = dict(enumerate(config.classes))
        settings.label2id = {name: number for number, name in enumerate(config.classes)}


def _is_of_head(name: str) -> bool:
    parts = name.split(".")
    return any(part in (*FIRST, *LAST) for part in parts[:2])


def _assembled(config: CrossEncoderConfig, loaded: Backbone, *, is_new: bool) -> CrossEncoderModel:
    """Take a classifier apart and put a cross-encoder together; both must say the same of a pair."""
    whole, tokenizer = loaded.model, loaded.tokenizer
    tokenizer.truncation_side = "right"
    contract = resolve_pair_contract(config, loaded, is_new=is_new)
    parts = parts_of(contract, loaded)
    if reads_last_token(whole):
        _settle_padding(whole, tokenizer, parts)
    try:
        head = _head(whole, contract)
    except LookupError as error:
        raise _unknown_head(config, error) from error
    backbone = replace(loaded, model=whole.base_model)
    freeze_backbone(backbone.model, config)
    head.float().requires_grad_(True)
    check_exits(config.exits, int(backbone.model.config.num_hidden_layers))
    if config.exits and contract.answer_start is not None:
        raise UserError(
            "model.exits",
            "are of models without a decoder",
            got=config.exits,
            cure="Leave them out",
        )
    model = CrossEncoderModel(
        backbone, contract, parts, whole, head, packing=config.packing, exits=config.exits
    )
    _refuse_other_scores(model, config)
    return model


def _head(whole: Any, contract: PairContract) -> Head:  # noqa: ANN401 - transformers is untyped
    if contract.answer_start is not None:
        return FirstWordHead(whole, contract.answers, contract.answer_start)
    return AnswerHead(whole, contract.answers) if contract.answers else ClassifierHead(whole)


def _settle_padding(whole: Any, tokenizer: Any, parts: PairParts) -> None:  # noqa: ANN401
    """Let no pair end in the padding token: other readers would skip it and read the token before."""
    last = parts.suffix[-1] if parts.suffix else None
    if tokenizer.pad_token_id in (None, last):
        known = (tokenizer.unk_token, tokenizer.bos_token)
        other = [one for one in known if one and tokenizer.convert_tokens_to_ids(one) != last]
        if not other:
            raise UserError(
                "model.template",
                "ends in the padding token, which readers of a classifier skip",
                got=tokenizer.pad_token,
                cure="Set another pad_token in the tokenizer",
            )
        tokenizer.pad_token = other[0]
    whole.config.pad_token_id = tokenizer.pad_token_id


@torch.no_grad()
def _refuse_other_scores(model: CrossEncoderModel, config: CrossEncoderConfig) -> None:
    """Compare the score of a pair with that of the classifier, as transformers computes it."""
    whole, pair = model.whole, model.pairs_of([PROBE])
    inputs: Any = {"input_ids": pair.ids[None]}
    if model.contract.answer_start is not None:
        inputs["decoder_input_ids"] = torch.full((1, 1), model.contract.answer_start)
    if pair.second is not None:
        inputs["token_type_ids"] = (torch.arange(len(pair.ids)) >= pair.second).long()[None]
    with loading(config.backbone), model.head.returned(whole):
        expected = whole(**inputs).logits.float()
        if model.contract.answers:
            logits = expected[:, -1, list(model.contract.answers)]
            expected = logits[:, :1] - (logits[:, 1:] if logits.shape[1] > 1 else 0)
    found = model.values(pair, Execution())
    tolerance = 1e-4 if next(whole.base_model.parameters()).dtype == torch.float32 else 0.1
    if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
        raise _unknown_head(config, (found - expected).abs().max().item())


def _unknown_head(config: CrossEncoderConfig, found: object) -> UserError:
    return UserError(
        config.backbone,
        "has a head for classes that embedtrain does not know",
        got=found,
        cure="Use a model of the families BERT, RoBERTa, ModernBERT, DistilBERT, ELECTRA, DeBERTa, MPNet or a decoder",
    )
