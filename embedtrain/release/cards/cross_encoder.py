"""The model card of a cross-encoder: everything in it comes from the run folder."""

import json
from pathlib import Path
from string import Template
from typing import Any

import yaml

from embedtrain.contract.pair_contract import PairContract
from embedtrain.evaluation.results.wording import HUB_NAMES, model_name
from embedtrain.objectives.own import name_of
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.markdown import inline
from embedtrain.release.cards.training_data import making
from embedtrain.resources import resource

WITH_SENTENCE_TRANSFORMERS = """With sentence-transformers$versions:

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
print(model.predict([("your query", "a document"), ("your query", "another document")]))
```

It cuts long texts in another way: scores are equal for queries of at most $query_length tokens in pairs of at most $length.
"""
WITH_EMBEDTRAIN = """With embedtrain:

```bash
embedtrain search RETRIEVER "your query" --data documents.jsonl --rerank path/to/this/folder
```"""
RERANKS = """A cross-encoder: it reads a query and a document together and scores how well the document answers. Let a faster
model retrieve some dozens of documents and put them in order with this one."""
CLASSIFIES = "A cross-encoder: it reads two texts together and tells which of these classes the pair is of: {names}."
MEASURE = "Measure the folder beside its first stage with `embedtrain evaluate RETRIEVER --data D --rerank THIS_FOLDER`."
UNMEASURED = "None were measured: count the right classes among pairs that were not trained on."
CHAT_VERSIONS = " 5.4 or later, which puts the template below around both texts by itself"
OWN_TEMPLATE = "Other readers put nothing around the texts of a pair: give them both texts in the template below."

FIRST_WORD = """An encoder-decoder of transformers, `AutoModelForSeq2SeqLM`. Give it both texts in the template below, and its decoder the
start token alone: the score is the logit of the first answer less that of the second, which `embedtrain.json`
names. sentence-transformers would put a new head on it, with random scores."""


def render_pair_card(run: RunFolder, recipe: Recipe, contract: PairContract) -> str:
    """Return the README.md of an exported cross-encoder."""
    backbone = HUB_NAMES.get(recipe.model.backbone, recipe.model.backbone)
    template = resource("model_cards").joinpath("cross_encoder_template.md").read_text("utf-8")
    plain, classes = contract.template is None, ", ".join(map(inline, contract.classes))
    use = _use(contract)
    return Template(template).substitute(
        name=inline(model_name(recipe.model.backbone)),
        metadata=yaml.safe_dump(_metadata(recipe, backbone, contract), sort_keys=False).strip(),
        use=use if classes else f"{use}\n{WITH_EMBEDTRAIN}",
        role="classifier of pairs" if classes else "reranker",
        what=CLASSIFIES.format(names=classes) if classes else RERANKS,
        measure=UNMEASURED if classes else MEASURE,
        backbone=inline(backbone),
        score=_meaning(contract),
        query_length=contract.query_length,
        length=contract.pair_length,
        template="the tokenizer's own"
        if plain
        else inline(json.dumps(contract.template, ensure_ascii=False)),
        **making(run, recipe),
    )


def _meaning(contract: PairContract) -> str:
    if contract.classes:
        return "a logit for each class, in their order"
    if contract.says_probability:
        return "the log-odds of being relevant"
    return "a number of which only the order of one query's documents means something"


def _use(contract: PairContract) -> str:
    """Return how other readers score pairs, and for which of them alike."""
    is_chat = contract.scoring == "yes_no"
    if contract.answer_start is not None:
        return FIRST_WORD
    if contract.template is not None and not is_chat:
        return OWN_TEMPLATE
    return Template(WITH_SENTENCE_TRANSFORMERS).substitute(
        versions=CHAT_VERSIONS if is_chat else "",
        query_length=contract.query_length,
        length=contract.pair_length,
    )


def _metadata(recipe: Recipe, backbone: str, contract: PairContract) -> dict[str, Any]:
    ranks = not contract.classes
    library = "sentence-transformers" if contract.answer_start is None else "transformers"
    metadata: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "text-ranking" if ranks else "text-classification",
        "tags": [
            *(library, "cross-encoder", *["reranker"] * ranks, "embedtrain"),
            f"loss:{name_of(recipe.objective)}",
        ],
    }
    if not backbone.startswith("package:") and not Path(backbone).expanduser().exists():
        metadata["base_model"] = backbone
    return metadata
