"""From a config or a folder to a cross-encoder, and back to a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.pairs import PairParts, parts_of_template, parts_of_tokenizer
from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.folder_files import BackboneFile, OwnFile, read_form
from embedtrain.models.backbone.loading import Backbone, Packing, load_backbone, preferred_device
from embedtrain.models.backbone.lora import add_lora
from embedtrain.models.backbone.pretrained import loading, quiet_transformers
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.cross_encoder.head import FIRST, LAST, ClassifierHead, keep_one_class
from embedtrain.models.dense.layout import CONTRACT_FILE, read_contract, write_contract

NEW_LENGTHS = 64, 512
"""Tokens of a query and of a pair, for a head that starts afresh."""
QUERY_SHARE = 0.75
"""Of the tokens of a pair, for classifiers whose folder says nothing of queries."""
PROBE = ("a small house", "the house near a tree")
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
READER = "4.1.0"
"""The oldest sentence-transformers that reads what turns scores into output; no later one warns of it."""


def is_cross_encoder(folder: Path) -> bool:
    """Whether a folder says of itself that it holds a cross-encoder."""
    own = folder / CONTRACT_FILE
    return own.is_file() and read_form(own, OwnFile).kind == "cross_encoder"


def has_classifier(folder: Path) -> bool:
    """Whether a folder holds a sequence classifier, trained by whatever library."""
    found = read_form(folder / "config.json", BackboneFile, optional=True).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in found)


def build_cross_encoder(config: CrossEncoderConfig, device: torch.device) -> CrossEncoderModel:
    """Load what a recipe or a folder names; a backbone without a head for classes gets a new one.

    Raises:
        UserError: If it has more than two classes, or a head that is none of those known.
    """
    folder = fetch(config.backbone, with_code=config.trust_remote_code)
    if config.lora is not None and config.lora.frozen == "nf4":
        raise UserError(
            "model.lora.frozen", "of a classifier cannot be nf4", got="nf4", cure="Use bfloat16"
        )
    is_new = not has_classifier(folder)

    def one_output(settings: Any) -> None:  # noqa: ANN401 - transformers is untyped
        if is_new:
            settings.num_labels = 1
        elif settings.num_labels > 2:
            raise UserError(
                config.backbone,
                "has more than two classes",
                got=settings.num_labels,
                cure="Give a model that scores relevance",
            )

    loaded = load_backbone(
        config.backbone,
        config,
        trust_remote_code=config.trust_remote_code,
        loader=AutoModelForSequenceClassification,
        optional=_is_of_head if is_new else lambda _: False,
        adjust=one_output,
        with_head=True,
    )
    if loaded.model.config.num_labels > 1:
        keep_one_class(loaded.model)
    return _assembled(config, loaded, is_new=is_new).to(device)


def load_cross_encoder(path: str, *, packing: Packing = "auto") -> CrossEncoderModel:
    """Load a sequence classifier, of whichever library, as it says.

    Raises:
        UserError: If it has no head for classes, or none that is known.
    """
    if not has_classifier(fetch(path)):
        raise UserError(
            path,
            "has no head for classes, so its scores would be random",
            cure="Give a sequence classifier, or train one with model.kind: cross_encoder",
        )
    config = CrossEncoderConfig(kind="cross_encoder", backbone=path, packing=packing)
    return build_cross_encoder(config, preferred_device("auto"))


def save_cross_encoder(model: CrossEncoderModel, folder: Path) -> None:
    """Write a classifier that transformers, sentence-transformers and servers of rerankers load."""
    folder.mkdir(parents=True, exist_ok=True)
    model.use_padded_attention()  # the name of the packed attention means nothing to other readers
    whole, contract = model.whole, model.contract
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
        head = ClassifierHead(whole)
    except LookupError as error:
        raise _unknown_head(config, error) from error
    backbone = replace(loaded, model=whole.base_model)
    if config.lora is not None:
        add_lora(backbone.model, config.lora)
    head.float().requires_grad_(True)
    model = CrossEncoderModel(backbone, contract, parts, whole, head, packing=config.packing)
    _refuse_other_scores(model, config)
    return model


def reads_last_token(whole: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Whether a classifier reads the last token that is no padding, as those of decoders do."""
    return "score" in dict(whole.named_children())


def resolve_pair_contract(
    config: CrossEncoderConfig, backbone: Backbone, *, is_new: bool
) -> PairContract:
    """Fill what the recipe leaves open from the folder, then from the defaults."""
    tokenizer, limit = backbone.tokenizer, backbone.max_length
    stated = None
    if is_cross_encoder(backbone.folder):
        stated = read_contract(backbone.folder, PairContract)
    if stated is None:
        length = min(limit, NEW_LENGTHS[1] if is_new else tokenizer.model_max_length)
        asked = config.length or length
        query = NEW_LENGTHS[0] if is_new else round(QUERY_SHARE * asked)
        stated = PairContract(
            scoring="classifier",
            query_length=min(query, asked),
            pair_length=length,
            template=_decoder_template(backbone) if reads_last_token(backbone.model) else None,
        )
    recipe = {
        "query_length": config.query_length,
        "pair_length": config.length,
        "template": config.template,
    }
    chosen = {key: value for key, value in recipe.items() if value is not None}
    return stated.model_copy(update=chosen)


def parts_of(contract: PairContract, backbone: Backbone) -> PairParts:
    """Return the tokens that a contract puts around both texts."""
    tokenizer = backbone.tokenizer
    if contract.template is not None:
        return parts_of_template(tokenizer, contract.template)
    parts = parts_of_tokenizer(tokenizer)
    told_apart = "token_type_ids" in tokenizer.model_input_names
    several = (getattr(backbone.model.config, "type_vocab_size", None) or 0) > 1
    return replace(parts, has_types=parts.has_types and told_apart and several)


def _decoder_template(backbone: Backbone) -> str | None:
    """Return what stands around texts for a decoder whose tokenizer puts nothing between them (RankLLaMA's)."""
    tokenizer = backbone.tokenizer
    if parts_of_tokenizer(tokenizer).middle:
        return None
    first, last = tokenizer.bos_token or "", tokenizer.eos_token or ""
    return f"{first}query: {{query}} document: {{document}}{last}"


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
    if model.contract.template is None:
        inputs = model.tokenizer(*PROBE, return_tensors="pt")
    with loading(config.backbone), model.head.returned(whole):
        expected = whole(**inputs).logits.float()
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
