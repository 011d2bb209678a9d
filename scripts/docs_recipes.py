"""Pages about the recipes: one for each folder of ``recipes/``, made from its README and its YAML files."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
INTRODUCTION = """# Recipes

A recipe is one YAML file. These come with embedtrain. A name works wherever a file does, and any key can be changed:

```bash
embedtrain recipes
embedtrain recipes show dense/info_nce
embedtrain train dense/info_nce "data.sources=[{path: pairs.jsonl}]" trainer.batch_size=256 --output runs/dense
```
"""


def recipe_folders() -> list[Path]:
    """Return the folders that hold recipes, ``recipes/`` itself first."""
    return [RECIPES, *sorted({path.parent for path in RECIPES.glob("*/*.yaml")})]


def page_name(folder: Path) -> str:
    """Return the page of a folder inside the documentation."""
    return "recipes/index.md" if folder == RECIPES else f"recipes/{folder.name}.md"


def title_of(folder: Path) -> str:
    """Return the first heading of the folder's README, or its name."""
    readme = folder / "README.md"
    if not readme.is_file():
        return folder.name.replace("_", " ").capitalize()
    return readme.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def recipe_page(folder: Path) -> str:
    """Return the page of a folder: what its README says, then every recipe of it."""
    readme = folder / "README.md"
    text = INTRODUCTION if folder == RECIPES else f"# {title_of(folder)}"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else text
    files = sorted(folder.glob("*.yaml"))
    parts = [text.rstrip(), _list(folder) if folder == RECIPES else "## The recipes"]
    parts += [_recipe(path) for path in files]
    return "\n\n".join(parts) + "\n"


def header_of(path: Path) -> str:
    """Return the comment at the head of a recipe as Markdown: lines indented by more than a space are commands."""
    parts: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        is_command, words = line.startswith("#  "), line[1:].strip()
        if is_command and parts and parts[-1].endswith("\n```"):
            parts[-1] = f"{parts[-1].removesuffix('```')}{words}\n```"
        elif is_command:
            parts.append(f"```bash\n{words}\n```")
        elif parts and not parts[-1].endswith("```"):
            parts[-1] += f"\n{words}"
        else:
            parts.append(words)
    return "\n\n".join(parts)


def _recipe(path: Path) -> str:
    name = path.relative_to(RECIPES).with_suffix("")
    lines = path.read_text(encoding="utf-8").splitlines()
    shown = "\n".join(f"    {line}" for line in lines if line and not line.startswith("#"))
    return f'### `{name}`\n\n{header_of(path)}\n\n??? note "The recipe"\n\n    ```yaml\n{shown}\n    ```'


def _list(folder: Path) -> str:
    lines = []
    for group in recipe_folders()[1:]:
        lines += [
            f"## [{title_of(group)}]({group.name}.md)",
            "",
            "| Recipe | What it is for |",
            "|---|---|",
        ]
        for path in sorted(group.glob("*.yaml")):
            description = yaml.safe_load(path.read_text(encoding="utf-8"))["description"]
            name = path.relative_to(folder).with_suffix("")
            lines.append(f"| [`{name}`]({group.name}.md#{anchor(str(name))}) | {description} |")
        lines.append("")
    return "\n".join([*lines, "## Quick start"])


def anchor(heading: str) -> str:
    """Return the anchor that the table of contents gives to a heading in code letters."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "_-")
