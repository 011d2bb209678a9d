"""Files that come with the package: recipes and the model-card template."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Return a file or folder that comes with the package, installed or in a checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / name


def find_recipe(recipe: str | Path) -> Path:
    """Return the file that a path, or the name of a recipe that comes with the package, stands for."""
    path = Path(recipe)
    named = resource("recipes") / f"{recipe}.yaml"
    return named if not path.exists() and named.is_file() else path
