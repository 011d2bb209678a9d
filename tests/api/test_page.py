"""Runs the code of docs/python.md as a reader would: one block after the other, in an empty folder."""

import re
import sys

import pytest
from doc_blocks import blocks_of
from places import ROOT

import embedtrain


@pytest.fixture
def page(bert, tmp_path, monkeypatch):
    """Return the page's blocks of Python, for a tiny model that lies on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("embedtrain.release.export.verify", lambda *_: None)  # a process of its own
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    text = text.replace("sentence-transformers/all-MiniLM-L6-v2", bert)
    yield [block for block in blocks_of("docs/python.md", text) if block.language == "python"]
    for name in ("my_losses", "my_data"):
        sys.modules.pop(name, None)


def test_every_block_of_the_page_runs_and_does_what_the_page_says(page, tmp_path, capsys):
    sys.path.insert(0, str(tmp_path))
    names = {}
    for block in page:
        if file := re.search(r'title="(.+)"', block.title):
            (tmp_path / file[1]).write_text(block.text, "utf-8")
        else:
            exec(compile(block.text, block.place, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "runs/first/model"
    assert printed[1] == "50"
    assert printed[2] == "(2, 32)"
    assert [line.split()[0] for line in printed[3:5]] == ["1", "2"]
    assert printed[5].startswith("nDCG@10")
    assert printed[-2:] == [
        "8",
        "recipe: trainer.stepz is an unknown key. Did you mean steps?",
    ]
    stored = embedtrain.load_recipe("runs/pull/recipe.yaml")
    assert type(stored.objective) is names["Pull"]
    assert stored.objective.weight == 2
