"""Unlabelled text to pre-train on: plain text, JSON Lines, CSV, Parquet, BEIR corpora, data sets."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat

from embedtrain.data.readers.functions import function_rows, hash_rows
from embedtrain.data.readers.huggingface import open_split
from embedtrain.data.readers.rows import Row, join_title, text_column
from embedtrain.data.readers.tabular import ROW_READERS
from embedtrain.data.readers.text_lines import hash_files, read_lines
from embedtrain.data.sources import detect_format, matching_files
from embedtrain.errors import UserError
from embedtrain.section import Count, Section

CorpusFormat = Literal["text", "jsonl", "csv", "tsv", "parquet", "beir", "datasets", "function"]
COLUMNS = ("text", "content", "document", "passage", "sentence")
"""Looked for in this order where the recipe names no column."""
TEXT_SUFFIXES = {".txt", ".text", ".md", ".rst"}


class CorpusConfig(Section):
    """One source of unlabelled text."""

    path: str
    """A file (.txt, .md, .rst, .jsonl, .csv, .tsv, each also with .gz; .parquet), a glob of such files, a
    folder of Parquet files, a BEIR folder, a folder saved by ``datasets``, a Hub id, or a function of your own as
    ``package.module:function``."""
    split: str = "train"
    """Split of a Hub data set; plain files have no splits."""
    name: str | None = None
    """Configuration of a Hub data set."""
    format: CorpusFormat | None = None
    """How to read ``path``; found from the path if left out."""
    column: str | None = None
    """Column of the text. Looked for: text (with title before it), content, document, passage, sentence."""
    translation: str | None = None
    """Column of the same text in another language, for ``data.spans: parallel``."""
    documents: Literal["line", "paragraph", "file"] = "line"
    """What one document of a plain text file is; paragraphs are separated by blank lines."""
    weight: PositiveFloat | None = None
    """Share of this source in a mixture, relative to the other sources' weights."""
    limit: Count | None = None
    """Keep the first documents, or pairs, only."""


@dataclass(frozen=True)
class Corpus:
    """An opened source of text; ``stream`` starts from the first document at every call.

    ``fingerprint`` changes with the content and with every setting that changes the documents. Empty
    documents are streamed too: who tokenises counts and drops them.
    """

    config: CorpusConfig
    place: str
    fingerprint: str
    stream: Callable[[], Iterator[tuple[str, str]]]

    def documents(self) -> Iterator[tuple[str, str]]:
        """Yield (place, text) of each document, in a fixed order; a translation follows its text."""
        per_row = 1 if self.config.translation is None else 2
        limit = self.config.limit
        return islice(self.stream(), None if limit is None else per_row * limit)


def open_corpus(config: CorpusConfig) -> Corpus:
    """Open a source of unlabelled text.

    Raises:
        UserError: If the path is nothing that can be read.
    """
    path = str(Path(config.path).expanduser()) if config.path.startswith("~") else config.path
    kind = config.format or _detect(path)
    config = config.model_copy(update={"path": path, "format": kind})
    if kind == "datasets":
        return _open_datasets(config)
    if kind == "function":
        content = _fingerprint(config, hash_rows(path, config.split))
        return Corpus(
            config, path, content, lambda: _read_rows(function_rows(path, config.split), config)
        )
    if kind == "text" and config.translation is not None:
        raise UserError(
            f"{path}: translation", "needs rows with columns", got=config.translation,
            cure="Give JSON Lines, CSV or Parquet",
        )  # fmt: skip
    plain = Path(path) / "corpus.jsonl"
    beir = plain if plain.is_file() else plain.with_name("corpus.jsonl.gz")
    paths = [beir] if kind == "beir" else matching_files(path)

    def read() -> Iterator[tuple[str, str]]:
        for file in paths:
            if kind == "text":
                yield from _read_text(file, config)
            else:
                yield from _read_rows(
                    ROW_READERS["jsonl" if kind == "beir" else kind](file), config
                )

    return Corpus(config, path, _fingerprint(config, hash_files(paths)), read)


def _detect(path: str) -> CorpusFormat:
    place = Path(path)
    suffix = Path(place.stem).suffix if place.suffix == ".gz" else place.suffix
    if suffix in TEXT_SUFFIXES and not place.is_dir():
        return "text"
    kind = detect_format(path)
    if kind == "python_docs":
        raise UserError(path, "holds pairs, not texts", cure="Name a file or folder of texts")
    return kind


def _fingerprint(config: CorpusConfig, content: str) -> str:
    left_out = {"path", "weight", *(() if config.translation else ("translation",))}
    settings = config.model_dump_json(exclude=left_out)
    return hashlib.sha256(f"{content}\n{settings}".encode()).hexdigest()


def _read_text(path: Path, config: CorpusConfig) -> Iterator[tuple[str, str]]:
    """Yield the documents of a plain text file."""
    lines = ((number, line) for number, _, line in read_lines(path))
    if config.documents == "line":
        yield from ((f"{path}:{number}", line.strip()) for number, line in lines)
        return
    if config.documents == "file":
        yield str(path), "".join(line for _, line in lines).strip()
        return
    pending: list[str] = []
    begin = 1
    for number, line in lines:
        if line.isspace():
            if pending:
                yield f"{path}:{begin}", "".join(pending).strip()
            pending = []
        else:
            begin = begin if pending else number
            pending.append(line)
    if pending:
        yield f"{path}:{begin}", "".join(pending).strip()


def _read_rows(rows: Iterator[tuple[str, Row]], config: CorpusConfig) -> Iterator[tuple[str, str]]:
    for place, row in rows:
        yield place, _text_of(row, config.column, place)
        if config.translation is not None:
            yield place, _text_of(row, config.translation, place)


def _text_of(row: Row, wanted: str | None, place: str) -> str:
    column = text_column(row, wanted, COLUMNS, place, "Name it in the recipe: column: ...")
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{place} {column}", "must be a text", got=text, cure="Mend the row")
    title = row.get("title") if wanted is None and column == "text" else None
    return join_title(title if isinstance(title, str) else None, text)


def _open_datasets(config: CorpusConfig) -> Corpus:
    data, content = open_split(config.path, config.split, config.name)
    place = f"{config.path} [{config.split}]"
    return Corpus(
        config,
        place,
        _fingerprint(config, content),
        lambda: _read_rows(((f"{place} row {i}", row) for i, row in enumerate(data, 1)), config),
    )
