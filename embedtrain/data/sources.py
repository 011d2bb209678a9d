"""The one door to training data: :func:`open_source` finds out what a path is and opens it."""

from glob import glob, has_magic
from pathlib import Path

from embedtrain.data.examples import Format, Progress, Source, SourceConfig
from embedtrain.data.python_docs.source import load_python_docs_task, open_python_docs
from embedtrain.data.raw_text.source import open_raw_text
from embedtrain.data.readers.beir import RetrievalTask, load_retrieval_task, open_beir
from embedtrain.data.readers.functions import find_function, is_function, open_function
from embedtrain.data.readers.huggingface import open_datasets
from embedtrain.data.readers.tabular import open_files
from embedtrain.data.readers.text_lines import GIVEN
from embedtrain.errors import UserError

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def open_source(
    config: SourceConfig, cache: Path | None = None, progress: Progress | None = None
) -> Source:
    """Open a source of training data."""
    path = str(Path(config.path).expanduser()) if config.path.startswith("~") else config.path
    if config.pairs is not None and config.pairs != "pivot":
        config = config.model_copy(update={"path": path})
        return open_raw_text(config, _documents(path))
    kind = config.format or detect_format(path)
    config = config.model_copy(update={"path": path, "format": kind})
    if config.pairs == "pivot":
        return open_raw_text(config, [], _open_rows(config, cache, progress))
    return _open_rows(config, cache, progress)


def _open_rows(config: SourceConfig, cache: Path | None, progress: Progress | None) -> Source:
    if config.format == "python_docs":
        return open_python_docs(config, cache, progress)
    if config.format == "beir":
        return open_beir(config)
    if config.format == "datasets":
        return open_datasets(config)
    if config.format == "function":
        return open_function(config)
    return open_files(config, matching_files(config.path))


def _documents(path: str) -> list[Path]:
    """Return the files of a glob or a folder of Parquet files, else the file or the folder of documents itself."""
    place = Path(path)
    if place.is_dir() and not any(place.glob("*.parquet")):
        return [place]
    if not has_magic(path) and not place.exists():
        cure = "Give a file or a folder of documents on this machine"
        raise UserError(path, "does not exist", cure=cure)
    return matching_files(path)


def check_early(config: SourceConfig) -> None:
    """Look at a source of a Python session before a model is loaded: read what was in memory, find a function.

    Raises:
        UserError: If a row cannot be used, or the function cannot be called.
    """
    if config.path in GIVEN:
        for _ in open_source(config).examples():
            pass
    elif config.format in (None, "function") and is_function(config.path):
        find_function(config.path)


def load_task(
    path: str, split: str = "test", cache: Path | None = None, progress: Progress | None = None
) -> RetrievalTask:
    """Read a retrieval task for evaluation: a BEIR folder, or ``python_docs``."""
    if path == "python_docs":
        return load_python_docs_task(split, cache, progress)
    return load_retrieval_task(Path(path).expanduser(), split)


def detect_format(path: str) -> Format:
    """Find the format from the name of a file or the contents of a folder."""
    if path == "python_docs":
        return "python_docs"
    if has_magic(path):
        return _format_of_name(matching_files(path)[0])
    place = Path(path)
    if place.is_dir():
        if (place / "corpus.jsonl").is_file() or (place / "qrels").is_dir():
            return "beir"
        return "parquet" if any(place.glob("*.parquet")) else "datasets"
    if place.is_file():
        return _format_of_name(place)
    if path.count("/") > 1 or path.startswith((".", "/")) or _suffix(place) in SUFFIXES:
        raise UserError(path, "does not exist", cure="Check the path; a Hub id is user/name")
    return "function" if is_function(path) else "datasets"


def matching_files(path: str) -> list[Path]:
    """List the files that a path, a glob or a folder of Parquet files stands for, in sorted order."""
    if Path(path).is_dir():
        return sorted(Path(path).glob("*.parquet"))
    if not has_magic(path) or Path(path).exists():
        return [Path(path)]
    found = sorted(Path(name) for name in glob(path, recursive=True))  # noqa: PTH207 - absolute patterns
    if not found:
        raise UserError(path, "matches no file", cure="Check the pattern")
    return found


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _format_of_name(path: Path) -> Format:
    try:
        return SUFFIXES[_suffix(path)]
    except KeyError:
        cure = "Rename it or name one of jsonl, csv, tsv, parquet as its format"
        raise UserError(path, "has an unknown ending", got=path.name, cure=cure) from None
