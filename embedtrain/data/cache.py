"""Where what is computed once is kept, and how it gets there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def default_cache() -> Path:
    """Return ``$EMBEDTRAIN_CACHE``, or ``embedtrain`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("EMBEDTRAIN_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embedtrain"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built by ``build`` in a temporary place and renamed if it does not exist yet."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    try:
        build(building)
        building.rename(folder)
    except OSError:
        if (
            not folder.is_dir()
        ):  # another process may have finished first; what it built is the same
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
