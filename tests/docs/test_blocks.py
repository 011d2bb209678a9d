"""Whatever the documentation tells a reader to type must be there: every shell, YAML, JSON and Python block."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, Block, Command, blocks_of, commands_of
from doc_commands import check_command, completed, load
from places import ROOT, SCRIPTS
from typer.testing import CliRunner

sys.path.append(str(SCRIPTS))
from docs_cli import cli_page
from docs_recipes import page_name, recipe_folders, recipe_page

from embedtrain.cli.main import app
from embedtrain.recipe.retrieval import load_recipe

WRITTEN = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
MADE = {page_name(folder): recipe_page(folder) for folder in recipe_folders()}
TEXTS = WRITTEN | MADE | {"reference/commands.md": cli_page()}
BLOCKS = [block for name, text in WRITTEN.items() for block in blocks_of(name, text)]
COMMANDS = [command for name, text in TEXTS.items() for command in commands_of(name, text)]
CHEAP = (
    "embedtrain recipes",
    "embedtrain recipes show dense/info_nce",
    "embedtrain --version",
    "embedtrain init pairs.jsonl --output my.yaml",
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader's folder: the modules that the pages tell one to write lie in it."""
    folder = tmp_path_factory.mktemp("reader")
    titled = {re.search(r'title="(\w+)\.py"', block.title): block.text for block in BLOCKS}
    names = {found[1]: text for found, text in titled.items() if found}
    for name, text in names.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield folder
    for name in names:
        sys.modules.pop(name, None)


def of_language(language: str) -> list:
    found = [block for block in BLOCKS if block.language == language]
    assert found, f"no page has a block of {language}"
    return [pytest.param(block, id=block.place) for block in found]


@pytest.mark.parametrize("block", of_language("yaml"))
def test_a_yaml_block_is_a_recipe_or_a_part_of_one(block: Block, reader):
    content = yaml.safe_load(block.text)
    load(content if "stages" in content else completed(content), reader / "recipe.yaml")


@pytest.mark.parametrize("block", of_language("json"))
def test_a_json_block_is_json(block: Block):
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", of_language("python"))
def test_a_python_block_compiles_and_names_what_is_there(block: Block):
    compile(block.text, block.place, "exec")
    for module, name in re.findall(r"^from (embedtrain[\w.]*) import (\w+)", block.text, re.M):
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    if "import embedtrain\n" in block.text:
        package = importlib.import_module("embedtrain")
        for name in set(re.findall(r"\bembedtrain\.(\w+)\(", block.text)):
            assert hasattr(package, name), f"embedtrain has no {name}"


def test_the_example_of_few_labels_prints_what_the_page_says(capsys):
    after = iter(BLOCKS)
    code = next(block for block in after if "few_labels" in block.title)
    exec(compile(code.text, code.place, "exec"), {})
    assert capsys.readouterr().out.strip() == next(after).text.strip()


def test_every_block_says_its_language_and_is_read_by_a_test():
    known = {"bash", "yaml", "json", "python", "text"}
    unknown = [block.place for block in BLOCKS if block.language not in known]
    assert not unknown, f"blocks of no known language: {unknown}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.place)
def test_a_command_can_be_typed(command: Command, reader):
    check_command(command, reader)


@pytest.mark.parametrize("line", CHEAP)
def test_a_cheap_command_runs_and_does_what_the_page_says(line, tmp_path, monkeypatch):
    words = line.split()
    assert any(list(command.words) == words for command in COMMANDS), "no page has it"
    monkeypatch.chdir(tmp_path)
    rows = next(
        block
        for block in BLOCKS
        if block.place.startswith("docs/index") and block.language == "json"
    )
    Path("pairs.jsonl").write_text(rows.text, encoding="utf-8")
    result = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert result.exit_code == 0
    if "--output" in words:
        assert load_recipe(words[-1]).data.sources[0].path == "pairs.jsonl"
    else:
        assert result.output.strip()


def test_commands_that_are_not_there_are_found(tmp_path):
    wrong = [
        "embedtrain trian my.yaml",
        "embedtrain train my.yaml --outptu runs/x",
        "embedtrain train dense/nothing",
        "embedtrain train dense/info_nce trainer.stepz=3",
        "embedtrain mine MODEL --data x --output y num_negativez=3",
        "make quikstart",
        "python scripts/nothing.py",
        "python scripts/benchmark_ops.py --onyl infonce",
        "pytest tests/nothing",
        "pip install embedtrain[nothing]",
        "curl something",
    ]
    for line in wrong:
        with pytest.raises(Exception, match=r"\w"):
            check_command(Command("here:1", tuple(line.split())), tmp_path)
