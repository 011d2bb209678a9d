"""The card of a changed export: what was changed, no scores of the whole model, and the Hub still takes it."""

import pytest
from huggingface_hub import ModelCard
from places import ROOT

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.models.build import load_dense, save_dense
from embedtrain.release.cards.changes import change_card, describe_changes
from embedtrain.release.export import export

CARD = ROOT / "model_cards" / "quickstart.md"


def test_changes_are_said_in_words():
    assert describe_changes(None, None, None, None) == []
    long_inputs = LongInputs(method="grouped", length=2048)
    assert describe_changes(3, 96, "forum", long_inputs) == [
        "ends at layer 3",
        "keeps the first 96 dimensions",
        "has the prompts of the instruction 'forum' in the place of the usual ones",
        "has grouped positions for 2,048 tokens",
    ]


def test_scores_of_the_whole_model_are_gone_and_everything_else_stays():
    whole = CARD.read_text(encoding="utf-8").replace(
        "## Training data", "## Further evaluations\n\n| x | 0.5 |\n\n## Training data"
    )
    changed = change_card(whole, ["keeps the first 96 dimensions"])
    old, new = ModelCard(whole), ModelCard(changed)
    assert old.data.eval_results
    assert not new.data.eval_results
    assert new.data.tags == old.data.tags
    assert "**This export keeps the first 96 dimensions.**" in changed
    assert "| nDCG@10 |" in whole
    assert "| nDCG@10 |" not in changed
    assert "Further evaluations" not in changed
    for heading in ("## Use", "## Scores", "## Training data", "## Recipe"):
        assert changed.count(f"\n{heading}\n") == 1
    assert changed.split("## Training data")[1] == whole.split("## Training data")[1]
    again = change_card(changed, ["ends at layer 3"])
    assert again.count("**This export") == 2


@pytest.mark.parametrize("text", ["# A model\n\nWords.\n", "No title.\n"])
def test_a_foreign_card_gets_the_note_too(text):
    changed = ModelCard(change_card(text, ["ends at layer 3"])).text
    assert "**This export ends at layer 3.**" in changed
    assert "Words." in changed or "No title." in changed


def test_a_cut_export_has_a_card_where_its_source_has_one(bert, tmp_path):
    save_dense(load_dense(bert), tmp_path / "model")
    assert not (export(bert, tmp_path / "none", dim=4) / "README.md").exists()
    (tmp_path / "model" / "README.md").write_text(CARD.read_text(encoding="utf-8"))
    small = export(str(tmp_path / "model"), tmp_path / "small", layer=1, dim=4)
    text = (small / "README.md").read_text(encoding="utf-8")
    assert "**This export ends at layer 1, keeps the first 4 dimensions.**" in text
