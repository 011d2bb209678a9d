"""From a recipe and a backbone's folder to the contract of a dense encoder."""

from collections.abc import Mapping

from embedtrain.contract.texts import Contract, TaskPrompts
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.layout import DEFAULT_LENGTH, Layout


def resolve_contract(config: DenseConfig, layout: Layout, backbone: Backbone) -> Contract:
    """Fill what the recipe leaves open from the folder, then from the defaults.

    Where the recipe asks for longer inputs, the backbone is changed as far as weights can express them.
    """
    stated = layout.contract
    prompts = layout.prompts or {}
    limit = min(backbone.max_length, DEFAULT_LENGTH)
    length = min(layout.max_length or limit, backbone.max_length)
    document_prompt = next(
        (prompts[key] for key in ("document", "passage", "corpus") if key in prompts), ""
    )
    folder = {
        "pooling": stated.pooling if stated else layout.pooling or "mean",
        "similarity": stated.similarity if stated else layout.similarity or "cosine",
        "query_prompt": stated.query_prompt if stated else prompts.get("query", ""),
        "document_prompt": stated.document_prompt if stated else document_prompt,
        "query_length": stated.query_length if stated else length,
        "document_length": stated.document_length if stated else length,
        "document_model": stated.document_model if stated else "",
        "echo": stated.echo if stated else False,
        "prepend": stated.prepend if stated else None,
        "long_inputs": stated.long_inputs if stated else None,
        "spans": stated.spans if stated else None,
    }
    recipe = {
        "pooling": config.pooling,
        "similarity": config.similarity,
        "query_prompt": config.query.prompt,
        "document_prompt": config.document.prompt,
        "query_length": config.query.length,
        "document_length": config.document.length,
        "echo": config.echo,
        "prepend": config.prepend,
        "spans": config.spans,
    }
    chosen = {key: value for key, value in recipe.items() if value is not None}
    contract = Contract.model_validate(folder | chosen)
    if config.long_inputs is not None:
        contract = lengthen(
            backbone.model,
            contract,
            config.long_inputs,
            "model.long_inputs",
            length=config.document.length,
        )
    separator = backbone.tokenizer.sep_token or ""
    own = {
        name: TaskPrompts(
            query=instruction.query_prompt(separator),
            document=instruction.document_prompt(separator, contract.document_prompt),
        )
        for name, instruction in config.instructions.items()
    }
    _refuse_long_prompts(own, contract, backbone)
    known = (stated.instructions if stated else {}) | own
    return contract.model_copy(update={"instructions": known})


def _refuse_long_prompts(
    instructions: Mapping[str, TaskPrompts], contract: Contract, backbone: Backbone
) -> None:
    """Refuse an instruction that leaves no room for a text."""
    for name, prompts in instructions.items():
        for side, prompt in (("query", prompts.query), ("document", prompts.document)):
            length = len(backbone.tokenizer(prompt)["input_ids"])
            limit = contract.query_length if side == "query" else contract.document_length
            if length >= limit:
                raise UserError(
                    f"model.instructions.{name}",
                    f"takes {length} tokens of a {side}, of which {limit} are kept",
                    cure=f"Raise model.{side}.length, or shorten it",
                )
