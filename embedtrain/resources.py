"""Files that come with the package: recipes and the model-card template."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(name: str) -> Path:
    """Return a file or folder that comes with the package, installed or in a checkout."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / name
