"""The model card: everything in it comes from the run folder, nothing is typed by hand."""

import json
from pathlib import Path
from string import Template
from typing import Any

import yaml

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.contract.stored import StoredOutputs
from embedtrain.contract.texts import AnyContract, ModelContract
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.results.wording import (
    HUB_NAMES,
    describe_data,
    describe_few,
    describe_gain,
    describe_overlap,
    metric_title,
    model_name,
    show_interval,
    show_paired,
)
from embedtrain.models.build import EncoderConfig
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.config import DenseConfig
from embedtrain.objectives.own import name_of
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_files import Summary, read_evaluation, read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.cross_encoder import render_pair_card
from embedtrain.release.cards.markdown import Row, inline, markdown_table
from embedtrain.release.cards.results import result_entry
from embedtrain.release.cards.training_data import making
from embedtrain.resources import resource
from embedtrain.types import Format

ONLY_HERE = "Other libraries have no module for what this model does and refuse the folder."
WITH_EMBEDTRAIN = """import embedtrain

model = embedtrain.load("path/to/this/folder")
queries = model.encode_queries([$query])
documents = model.encode_documents(["your document"])
print(model.search($query, ["your document"]))"""
WITH_SENTENCE_TRANSFORMERS = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
queries = model.encode_query([$query])
documents = model.encode_document(["your document"])
print(model.similarity(queries, documents))"""
WITH_PYLATE = """from pylate import models

model = models.ColBERT("path/to/this/folder")
queries = model.encode([$query], is_query=True)
documents = model.encode(["your document"], is_query=False)"""
WITH_MULTI_VECTOR = """from sentence_transformers.multi_vector_encoder import MultiVectorEncoder

model = MultiVectorEncoder("path/to/this/folder")
queries = model.encode_query([$query])
documents = model.encode_document(["your document"])"""
WITH_SPARSE_ENCODER = """from sentence_transformers import SparseEncoder

model = SparseEncoder("path/to/this/folder"$kept)
queries = model.encode_query([$query])
documents = model.encode_document(["your document"])
print(model.decode(queries))
print(model.similarity(queries, documents))"""
USE = {
    "dense": {"sentence-transformers": WITH_SENTENCE_TRANSFORMERS},
    "sparse": {"sentence-transformers": WITH_SPARSE_ENCODER},
    "late_interaction": {"sentence-transformers": WITH_MULTI_VECTOR, "PyLate": WITH_PYLATE},
}
"""How other libraries load a model of each form; those of no entry have no module for what it does."""
CODES: dict[Format, str] = {
    "int8": "codes = np.rint(127 * documents).astype(np.int8)  # compare queries with codes / 127",
    "binary": "bits = np.packbits(documents >= 0, axis=1)  # compare float queries with 1 for a bit and -1 for none",
    "ternary": "levels = np.sign(documents) * (abs(documents) * documents.shape[1] ** 0.5 > 0.612)",
}
"""How numpy makes codes of vectors of length 1."""
Results = tuple[EvaluationResult, EvaluationResult] | None
SHOWN = 100
"""Characters of a query that a card shows."""
LOADED_BY = {
    "dense": ["sentence-transformers"],
    "sparse": ["sentence-transformers"],
    "late_interaction": ["PyLate", "ColBERT", "sentence-transformers"],
}
"""The Hub's names of the libraries that load a model of each form, first the one to name; else only we do."""


def render_card(run: RunFolder, recipe: Recipe, contract: ModelContract) -> str:
    """Return the README.md of the exported model."""
    if isinstance(contract, PairContract):
        return render_pair_card(run, recipe, contract)
    assert not isinstance(recipe.model, CrossEncoderConfig)
    form = _form(recipe.model, contract)
    template = Template(resource("model_cards").joinpath("template.md").read_text(encoding="utf-8"))
    evaluation = read_evaluation(run)
    return template.substitute(
        name=inline(model_name(recipe.model.backbone)),
        metadata=yaml.safe_dump(_metadata(recipe, form, evaluation), sort_keys=False).strip(),
        backbone=inline(HUB_NAMES.get(recipe.model.backbone, recipe.model.backbone)),
        pooling=_pooling(recipe.model, contract),
        similarity=contract.similarity,
        use=_use(form, _query(run, recipe), contract),
        query_prompt=inline(json.dumps(recipe.model.query.prompt)),
        query_length=recipe.model.query.length,
        document_prompt=inline(json.dumps(recipe.model.document.prompt)),
        document_length=recipe.model.document.length,
        scores=_scores(evaluation),
        **making(run, recipe),
    )


def _form(model: EncoderConfig, contract: AnyContract) -> str:
    """Say who can load the model: a folder must not claim a library that would refuse it."""
    if isinstance(contract, LateInteractionContract):
        return "late_interaction" if contract.is_portable else "own_late_interaction"
    if isinstance(contract, SparseContract):
        return "sparse" if contract.is_portable else "own_sparse"
    assert isinstance(model, DenseConfig)
    gated = model.query_gate is not None and model.query_gate.at_inference
    parts = (
        *(model.words, model.layer_pooling, model.interaction),
        *(model.attention_pooling, model.decoder_pooling),
    )
    own = gated or contract.spans in ("mlp", "values") or any(part is not None for part in parts)
    own = own or (contract.long_inputs is not None and not contract.long_inputs.in_weights)
    own = own or contract.framing is not None or contract.prepend is not None
    return "unified" if own or contract.echo else "dense"


def _pooling(model: EncoderConfig, contract: AnyContract) -> str:
    if isinstance(contract, SparseContract):
        if contract.winners is not None:
            winners, apart = contract.winners, contract.winners.buckets == "concatenated"
            of_each = f" of each of {len(winners.layers) + 1} layers" * apart
            return f"the {winners.winners} largest of {winners.entries} outputs{of_each} for each token (UHD)"
        if contract.code is not None:
            return f"the {contract.code.kept} largest of {contract.code.entries} entries of a dictionary over dense vectors (CSR)"
        queries = ", queries without a model" if contract.static_queries else ""
        return f"the largest {contract.activation} logit of each word (SPLADE){queries}"
    if isinstance(model, DenseConfig):
        words = model.words
        pooling = (
            "attention of a learned seed (PMA)" if model.attention_pooling else str(model.pooling)
        )
        if model.decoder_pooling is not None:
            pooling = "the first output of the decoder (Sentence-T5)"
        if words is None:
            return pooling
        size = words.dim or "all vocabulary"
        return f"{pooling}, and {size} coordinates for words (DupMAE)"
    assert isinstance(contract, LateInteractionContract)
    return f"none: late interaction (MaxSim), {contract.dim} dimensions per vector"


def _metadata(recipe: Recipe, form: str, evaluation: Results) -> dict[str, Any]:
    kind = next((k for k in ("late_interaction", "sparse") if form.endswith(k)), "dense")
    loaders = LOADED_BY.get(form, [])
    tags = [
        *loaders,
        "sentence-similarity",
        "feature-extraction",
        kind.replace("_", "-"),
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
    if evaluation:
        entry = result_entry(evaluation[1])
        metadata["model-index"] = [{"name": "model", "results": [entry]}]
    return metadata


def _query(run: RunFolder, recipe: Recipe) -> str:
    """Return a query of the evaluation as a literal of Python; one of the training data might be private."""
    found = read_summary(run) if recipe.evaluation else Summary()
    query = (found.get("example") or found).get("query") or "your query"
    shown = " ".join(query.replace("`", "'").split())[:SHOWN]
    return json.dumps(shown, ensure_ascii=False)


def _use(form: str, query: str, contract: ModelContract) -> str:
    """Show how each library that can loads the folder and encodes ``query``."""
    top_k = contract.query_top_k if isinstance(contract, SparseContract) else None
    # Version 6 reads it in the folder, version 5 does not.
    kept = "" if top_k is None else f", max_active_dims={top_k}"
    blocks = USE.get(form, {}) | {"embedtrain": WITH_EMBEDTRAIN}
    filled = {
        name: text.replace("$kept", kept).replace("$query", query) for name, text in blocks.items()
    }
    shown = "\n\n".join(f"With {name}:\n\n```python\n{text}\n```" for name, text in filled.items())
    if not isinstance(contract, SparseContract | PairContract) and contract.outputs is not None:
        shown += f"\n\n{stored_as(contract.outputs)}"
    return shown if form in USE else f"{shown}\n\n{ONLY_HERE}"


def stored_as(outputs: StoredOutputs) -> str:
    """Say what vectors were made to be stored as, and how whoever has only floats stores them so."""
    lines = "\n".join(CODES[one] for one in outputs.quantize)
    return (
        f"Vectors come as floats and are made to be stored as {outputs.sentence()}: embedtrain does so with `--quantize "
        f"trained`, and elsewhere, of vectors of length 1 in numpy:\n\n```python\n{lines}\n```"
    )


def _scores(evaluation: Results) -> str:
    if not evaluation:
        return "The recipe names no evaluation. Measure the folder with `embedtrain evaluate`."
    before, after = evaluation
    assert after.comparison is not None
    compared = after.comparison.metrics
    rows: list[Row] = [
        [
            metric_title(name),
            show_interval(before.metrics[name]),
            show_interval(after.metrics[name]),
            *show_paired(paired),
        ]
        for name, paired in compared.items()
    ]
    seen = after.train_overlap
    lines = [
        f"**{describe_gain(after, next(iter(compared)), 'before training')}.**",
        markdown_table(["Metric", "Before", "After", "Difference", "p"], rows),
        f"Measured on {inline(describe_data(after.data))}. In brackets: 95 % intervals over queries by the "
        "studentised bootstrap; p is the larger of a paired sign-flip test's and the bootstrap's"
        f"{describe_few(interval.num for interval in after.metrics.values())}.",
        "" if seen is None else f"{describe_overlap(seen)}.",
    ]
    return "\n\n".join(filter(None, lines))
