"""Files that come with the package: recipes and the model-card template."""

from difflib import get_close_matches
from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Return a file or folder that comes with the package, installed or in a checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / name


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, sorted."""
    folder = resource("recipes")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def suggest_recipe(name: str) -> str:
    """Return what to do where there is no recipe of this name: take the one that was meant, if one is close."""
    close = get_close_matches(name.removesuffix(".yaml"), recipe_names(), 1)
    return f"Did you mean {close[0]}?" if close else "See `embedtrain recipes`"


def is_recipe(name: str) -> bool:
    """Whether a recipe is named, and no folder: a YAML file, or one that comes with the package."""
    path = Path(name)
    return path.suffix in (".yaml", ".yml") or (not path.exists() and name in recipe_names())


def find_recipe(recipe: str | Path) -> Path:
    """Return the file that a path, or the name of a recipe that comes with the package, stands for."""
    path = Path(recipe)
    named = resource("recipes") / f"{recipe}.yaml"
    return named if not path.exists() and named.is_file() else path
