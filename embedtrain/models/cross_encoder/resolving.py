"""From a recipe and a backbone's folder to the contract of a cross-encoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from embedtrain.contract.pair_contract import QUERY_SHARE, PairContract, PairScoring
from embedtrain.contract.pairs import (
    PairParts,
    parts_of_template,
    parts_of_tokenizer,
    space_before,
    without_spaces,
)
from embedtrain.errors import UserError
from embedtrain.models.backbone.families import is_whole, start_of
from embedtrain.models.backbone.folder_files import BackboneFile, OwnFile, read_form
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.cross_encoder.answers import (
    answer_entry,
    answers_file,
    contract_of_answers,
    refuse_joined,
)
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.cross_encoder.first_word import first_entry
from embedtrain.models.dense.layout import CONTRACT_FILE, read_contract

NEW_LENGTHS = {"classifier": (64, 512), "yes_no": (512, 2048)}
"""Tokens of a query and of a pair, where neither recipe nor folder says more."""


def is_cross_encoder(folder: Path) -> bool:
    """Whether a folder says of itself that it holds a cross-encoder, ours or one of sentence-transformers' answers."""
    own = folder / CONTRACT_FILE
    if own.is_file():
        return read_form(own, OwnFile).kind == "cross_encoder"
    return answers_file(folder) is not None


def has_classifier(folder: Path) -> bool:
    """Whether a folder holds a sequence classifier, trained by whatever library."""
    found = read_form(folder / "config.json", BackboneFile, optional=True).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in found)


def scoring_of(config: CrossEncoderConfig, folder: Path) -> PairScoring:
    """Return what makes a score: as the recipe says, then as the folder does."""
    if config.scorer is not None or not is_cross_encoder(folder):
        return config.scorer or "classifier"
    stated = read_contract(folder, PairContract)
    return "yes_no" if stated is None else stated.scoring


def reads_last_token(whole: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Whether a classifier reads the last token that is no padding, as those of decoders do."""
    return "score" in dict(whole.named_children())


def resolve_pair_contract(
    config: CrossEncoderConfig, backbone: Backbone, *, is_new: bool
) -> PairContract:
    """Fill what the recipe leaves open from the folder, then from the defaults."""
    tokenizer, limit = backbone.tokenizer, backbone.max_length
    scoring, stated = scoring_of(config, backbone.folder), None
    if is_cross_encoder(backbone.folder):
        stated = read_contract(backbone.folder, PairContract) or contract_of_answers(backbone)
    if stated is None:
        query, length = NEW_LENGTHS[scoring]
        known = scoring == "classifier" and not is_new
        length = min(limit, tokenizer.model_max_length if known else length)
        asked = config.length or length
        query = round(QUERY_SHARE * asked) if known else query
        stated = PairContract(
            scoring=scoring,
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
    contract = stated.model_copy(update=chosen | {"classes": config.classes})
    if contract.template is None and scoring == "yes_no":
        raise UserError(
            "model.template",
            "is missing",
            cure="Write the question, with {query} and {document} in it",
        )
    if contract.template is not None:
        contract = contract.model_copy(update={"space": space_before(tokenizer)})
    contract = _with_instructions(contract, config, tokenizer)
    if scoring == "classifier":
        return contract
    config_of = backbone.model.config
    start = start_of(config_of, backbone.path) if is_whole(config_of) else None
    contract = contract.model_copy(update={"answer_start": start})
    return contract.model_copy(update={"answers": _answers(config, tokenizer, contract)})


def _with_instructions(
    contract: PairContract,
    config: CrossEncoderConfig,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
) -> PairContract:
    """Add what the recipe's instructions put before queries to what the folder knows."""
    own = {
        name: instruction.query_prompt(tokenizer.sep_token or "")
        for name, instruction in config.instructions.items()
    }
    for name, prompt in own.items():
        length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if length >= contract.query_length:
            raise UserError(
                f"model.instructions.{name}",
                f"takes {length} tokens of a query, of which {contract.query_length} are kept",
                cure="Raise model.query_length, or shorten it",
            )
    return contract.model_copy(update={"instructions": contract.instructions | own})


def _answers(config: CrossEncoderConfig, tokenizer: Any, contract: PairContract) -> tuple[int, ...]:  # noqa: ANN401
    """Return the entries of the answers: as the recipe names them, then as the folder does, then of yes and no."""
    assert contract.template is not None
    found: tuple[int, ...] = ()
    for number, default in enumerate(("yes", "no")):
        key = f"{default}_word"
        word = getattr(config, key)
        if word is None and contract.answers:
            found += contract.answers[number : number + 1]
        elif word != "" or default == "yes":
            word = default if word is None else word
            place = f"model.{key}"
            found += (
                first_entry(tokenizer, word, place)
                if contract.answer_start is not None
                else answer_entry(tokenizer, contract.template, word, place),
            )
    if len(set(found)) < len(found):
        raise UserError(
            "model.no_word", "is the same token as yes_word", got=config.no_word or "no"
        )
    return found


def parts_of(contract: PairContract, backbone: Backbone) -> PairParts:
    """Return the tokens that a contract puts around both texts."""
    tokenizer = backbone.tokenizer
    if contract.template is not None:
        parts = parts_of_template(tokenizer, without_spaces(contract.template))
        if contract.scoring == "yes_no":
            refuse_joined(tokenizer, contract, parts)
        return parts
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
