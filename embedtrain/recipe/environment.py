"""Where and by what a run was made: versions, machine, git commit and command."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from embedtrain.redaction import redact

PACKAGES = (
    "embedtrain",
    "torch",
    "transformers",
    "pytorch-lightning",
    "datasets",
    "tokenizers",
    "numpy",
)


def describe_environment() -> dict[str, Any]:
    """Return what ``environment.json`` of a run holds."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "command": [redact(word) for word in sys.argv],
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": versions,
        "git_commit": _git_commit(),
        "num_threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git_commit() -> str | None:
    """Return the commit of the folder the command runs in, marked if files were changed."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
