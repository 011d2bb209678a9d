"""Checks a command as its reader would type it: parsed, never run; recipes and settings that it names are loaded."""

import re
import sys
import tomllib

import yaml
from doc_blocks import Command
from places import ROOT, SCRIPTS

sys.path.append(str(SCRIPTS))
from docs_cli import command_line

from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.overrides import read_section
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.training.adapters.fit import AdaptConfig
from embedtrain.workflows.pipeline import load_pipeline
from embedtrain.workflows.static import StaticConfig

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
