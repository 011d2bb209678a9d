"""Whatever the documentation tells a reader to type must be there: every shell, YAML, JSON and Python block."""

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, Block, Command, blocks_of, commands_of
from places import ROOT, SCRIPTS
from typer.testing import CliRunner

sys.path.append(str(SCRIPTS))
from docs_cli import cli_page, command_line
from docs_recipes import page_name, recipe_folders, recipe_page

from embedtrain.cli.main import app
from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.overrides import read_section
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.training.adapters.fit import AdaptConfig
from embedtrain.workflows.pipeline import load_pipeline
from embedtrain.workflows.static import StaticConfig

WRITTEN = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
MADE = {page_name(folder): recipe_page(folder) for folder in recipe_folders()}
TEXTS = WRITTEN | MADE | {"reference/commands.md": cli_page()}
BLOCKS = [block for name, text in WRITTEN.items() for block in blocks_of(name, text)]
COMMANDS = [command for name, text in TEXTS.items() for command in commands_of(name, text)]
SECTIONS = {
    "mine": MiningConfig,
    "synth": SynthesisConfig,
    "adapt": AdaptConfig,
    "static": StaticConfig,
}
BASE = {
    "description": "What a part of a recipe is completed with.",
    "data": {"sources": [{"path": "pairs.jsonl"}]},
    "model": {"backbone": "tiny"},
    "trainer": {"steps": 1},
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
CHEAP = (
    "embedtrain recipes",
    "embedtrain recipes show dense/info_nce",
    "embedtrain --version",
    "embedtrain init pairs.jsonl --output my.yaml",
)
TOOLS = {"ruff", "mypy", "lint-imports", "mkdocs"}


def completed(part: dict) -> dict:
    """Return a whole recipe that holds a part of one."""
    whole = {**BASE, **part}
    for key in ("data", "model", "trainer"):
        given = part.get(key, {})  # a word, such as auto, says it all
        whole[key] = {**BASE[key], **given} if isinstance(given, dict) else given
    if "epochs" in whole["trainer"]:
        whole["trainer"].pop("steps")
    return whole


def load(content: dict, path, overrides=()):
    """Load a recipe of either form, stages included."""
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    if "stages" not in content:
        load_recipe(path, overrides)
        return
    for stage in load_pipeline(path, overrides).stages:
        if stage.train is not None:
            load({"description": stage.name, **stage.train}, path)


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


def check_command(command: Command, folder) -> None:
    program, *words = command.words
    program = program.removeprefix(".venv/bin/")
    if program == "torchrun" or words[:2] == ["-m", "embedtrain"]:
        program, words = "embedtrain", words[words.index("embedtrain") + 1 :]
    if program == "embedtrain":
        check_embedtrain(words, folder, partial=command.partial)
    elif program in ("python", "pytest"):
        check_python(program, words)
    elif program == "make":
        assert set(words) <= TARGETS, f"make knows {sorted(TARGETS)}"
    elif program == "pip":
        check_extras(words)
    else:
        assert program in TOOLS, f"{program} is nothing that a test knows"


def check_embedtrain(words: list[str], folder, *, partial: bool) -> None:
    """Parse a command line as the program does, and load the recipe and the settings that it names."""
    root = command_line()
    names = [word for word in words if not word.startswith("-")]
    if not names:
        known = {"--help", *(option for parameter in root.params for option in parameter.opts)}
        assert {*words} <= known, f"embedtrain knows {sorted(known)}"
        return
    command, rest = root.commands.get(names[0]), words[words.index(names[0]) + 1 :]
    assert command is not None, f"embedtrain has no command {names[0]}"
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    try:
        parsed = command.make_context(command.name, list(rest)).params
    except Exception as error:
        if partial and type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"):
            return
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    overrides = list(parsed.get("overrides") or ())
    if names[0] in SECTIONS:
        read_section(SECTIONS[names[0]], overrides)
    elif parsed.get("recipe") and not parsed.get("resume"):
        check_recipe(parsed["recipe"], overrides, folder)


def check_recipe(name: str, overrides: list[str], folder) -> None:
    own = ROOT / "recipes" / f"{name.removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    if own.is_file():
        load(yaml.safe_load(own.read_text(encoding="utf-8")), folder / "recipe.yaml", overrides)
    else:
        assert name.endswith(".yaml"), f"there is no recipe {name}"
        load(BASE, folder / name, overrides)


def check_python(program: str, words: list[str]) -> None:
    if program == "pytest" or words[:2] == ["-m", "pytest"]:
        paths = [word for word in words if word.startswith("tests")]
        missing = [path for path in paths if "FILE" not in path and not (ROOT / path).exists()]
        assert not missing, f"no such tests: {missing}"
        return
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    source = script.read_text(encoding="utf-8")
    for name in re.findall(r"^(?:from|import) (\w+)", source, re.M):
        beside = script.with_name(f"{name}.py")
        source += beside.read_text(encoding="utf-8") if beside.is_file() else ""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    unknown = [option for option in options if f'"{option}"' not in source]
    assert not unknown, f"{words[0]} does not know {unknown}"


def check_extras(words: list[str]) -> None:
    for extra in re.findall(r"embedtrain\[([\w,-]+)\]", " ".join(words)):
        unknown = set(extra.split(",")) - set(PROJECT["optional-dependencies"])
        assert not unknown, f"no such extras: {unknown}"


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
