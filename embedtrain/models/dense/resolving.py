"""From a recipe and a backbone's folder to the contract of a dense encoder."""

from collections.abc import Mapping

from embedtrain.contract.adapters import ChosenAdapters
from embedtrain.contract.framing import Framing
from embedtrain.contract.texts import Contract, TaskPrompts
from embedtrain.errors import UserError
from embedtrain.models.backbone.families import WITH_DECODER
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.long_positions import lengthen
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.layout import DEFAULT_LENGTH, Layout


def resolve_contract(config: DenseConfig, layout: Layout, backbone: Backbone) -> Contract:
    """Fill what the recipe leaves open from the folder, then from the defaults.

    Where the recipe asks for longer inputs, the backbone is changed as far as weights can express them.
    """
    stated = layout.contract or _contract_of(layout, backbone)
    recipe = {
        "pooling": config.pooling,
        "similarity": config.similarity,
        "query_prompt": config.query.prompt,
        "document_prompt": config.document.prompt,
        "query_length": config.query.length,
        "document_length": config.document.length,
        "echo": config.echo,
        "prepend": config.prepend,
        "spans": config.spans if config.value_spans is None else "values",
        "in_context": config.in_context,
        "late_chunks": config.late_chunks,
        "framing": _framing(config, stated),
    }
    chosen = {key: value for key, value in recipe.items() if value is not None}
    contract = Contract.model_validate(stated.model_dump() | chosen)
    if contract.framing == Framing():  # empty suffixes, as a run keeps them
        contract = contract.model_copy(update={"framing": None})
    if contract.in_context and contract.spans is None:
        cure = "Set model.spans: mean"
        raise UserError("model.in_context", "marks chunks, which nothing here pools", cure=cure)
    if contract.pooling == "cls" and backbone.model.config.model_type in WITH_DECODER:
        raise UserError(
            "model.pooling",
            "cls pools the first token, and this tokenizer puts none there",
            got=backbone.model.config.model_type,
            cure="Use mean",
        )
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
    adapters, tasks = stated.adapters, {} if config.lora is None else config.lora.adapters
    if tasks and adapters is None:
        adapters = ChosenAdapters(tasks=tasks, active=next(iter(tasks.values())))
    changed = {"instructions": stated.instructions | own, "adapters": adapters}
    return contract.model_copy(update=changed)


def _framing(config: DenseConfig, stated: Contract) -> dict[str, object] | None:
    """Return what stands behind texts, where the recipe says so; None leaves it to the folder."""
    asked = {
        "query_suffix": config.query.suffix,
        "document_suffix": config.document.suffix,
        "contrast": config.contrast,
        "query_cut": config.query.cut,
    }
    told = {name: value for name, value in asked.items() if value is not None}
    if config.prompts is not None:
        return Framing(prompts=config.prompts).model_dump()
    changes = {name: value for name, value in told.items() if value not in ("", "end")}
    if not told or (not changes and stated.framing is None):
        return None
    known = (stated.framing or Framing()).model_dump() | {"prompts": ()}
    return Framing.model_validate(known | told).model_dump()


def _contract_of(layout: Layout, backbone: Backbone) -> Contract:
    """Return the contract of a folder that is not one of embedtrain's."""
    prompts = layout.prompts or {}
    limit = min(backbone.max_length, DEFAULT_LENGTH)
    length = min(layout.max_length or limit, backbone.max_length)
    names = ("document", "passage", "corpus")
    return Contract(
        pooling=layout.pooling or "mean",
        similarity=layout.similarity or "cosine",
        query_prompt=prompts.get("query", ""),
        document_prompt=next((prompts[name] for name in names if name in prompts), ""),
        query_length=length,
        document_length=length,
    )


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
