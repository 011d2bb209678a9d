"""The cards that are kept: valid for the Hub, and true to what they state themselves."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from places import ROOT

from embedtrain.recipe.retrieval import load_recipe

FOLDER = ROOT / "model_cards"
CARDS = sorted(path for path in FOLDER.glob("*.md") if not path.name.endswith("template.md"))


def test_there_are_cards_of_released_models():
    assert {"cosent", "late_interaction", "quickstart", "static"} <= {path.stem for path in CARDS}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_is_one_that_the_hub_takes_and_nothing_in_it_is_left_open(path):
    text = path.read_text(encoding="utf-8")
    card = ModelCard(text)
    assert "embedtrain" in card.data.tags
    assert card.data.library_name
    assert not re.search(r"\$[a-z_]+", text), "every field of the template is filled in"
    if "model-index" in text:
        assert card.data.eval_results


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_resolved_recipe_in_a_card_is_a_recipe(path, tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.description == yaml.safe_load(block)["description"]
    assert recipe.trainer.steps or recipe.trainer.epochs


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_the_table_shows_the_values_of_the_metadata(path):
    text = path.read_text(encoding="utf-8")
    for result in ModelCard(text).data.eval_results or []:
        kind, _, cutoff = result.metric_type.partition("_at_")
        name = f"| {kind}@{cutoff} |" if cutoff else f"| {kind} |"
        rows = [line for line in map(_plain, text.splitlines()) if line.startswith(name)]
        shown = [number for row in rows for number in re.findall(r"\d\.\d+", row)]
        digits = {len(number) - 2 for number in shown}
        assert {f"{result.metric_value:.{places}f}" for places in digits} & set(shown)


def _plain(line):
    """A line of a table without what only aligns it."""
    return re.sub(" +", " ", line).lower()
