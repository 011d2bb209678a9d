"""Training data without a download: what the installed Python packages say about themselves.

The query is the first sentence of a docstring, the document the object's name, signature and the rest of
its docstring, or the start of its source. Files are parsed, never imported.
"""

import hashlib
import inspect
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from pathlib import Path
from typing import get_args

from embedtrain.data import near_duplicates
from embedtrain.data.examples import (
    Example,
    Progress,
    Source,
    SourceConfig,
    fingerprint_of,
    limited,
)
from embedtrain.data.python_docs import python_pairs
from embedtrain.data.python_docs.docstring_text import normalize
from embedtrain.data.python_docs.extraction import (
    READERS,
    read_packages,
    without_garbage_collection,
)
from embedtrain.data.python_docs.python_packages import PythonPackage, installed_packages
from embedtrain.data.python_docs.python_pairs import HELD_OUT, PythonPair, Split, curate
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.files import default_cache
from embedtrain.seals import keep_once

SPLITS: tuple[Split, ...] = get_args(Split)
ALL = "all"
EXTRACTION = (*READERS, near_duplicates, python_pairs)
"""The modules whose text decides which pairs there are, so that changing them renews the cache."""


@dataclass(frozen=True)
class PythonDocsReport:
    """What was found: counts of files and pairs, pairs of each split, packages held out."""

    num_packages: int
    num_files: int
    num_unreadable_files: int
    num_raw_pairs: int
    num_distinct_pairs: int
    num_pairs: dict[str, int]
    held_out: dict[str, dict[str, int]]
    seconds: float


@dataclass(frozen=True)
class StoredPair:
    """One line of the cache; ``id`` is the qualified name, made unique."""

    id: str
    query: str
    document: str
    package: str


def open_python_docs(
    config: SourceConfig, cache: Path | None = None, progress: Progress | None = None
) -> Source:
    """Open one split (train, validation, test, or all of them) of the pairs of the installed packages.

    A limit takes pairs of all packages, by a hash of their ids, not those of the first packages.
    """
    folder = python_docs_folder(cache, progress)
    files = split_files(folder, config.split)
    length = sum(read_report(folder).num_pairs[path.stem] for path in files)

    def stream() -> Iterator[Example]:
        pairs = stored_pairs(files)
        if config.limit is not None and config.limit < length:
            pairs = iter(nsmallest(config.limit, pairs, key=lambda pair: _hash(pair.id)))
        for pair in pairs:
            yield Example(pair.query, (pair.document,), query_id=pair.id, document_ids=(pair.id,))

    place = f"{config.path} [{config.split}]"
    content = hash_files(files)
    return Source(config, place, fingerprint_of(config, content), stream, limited(length, config))


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def load_python_docs_task(
    split: str = "test", cache: Path | None = None, progress: Progress | None = None
) -> RetrievalTask:
    """Read a split for evaluation: each query against all documents of the split.

    Documents of the same query (case and punctuation aside) are all relevant to it.
    """
    files = split_files(python_docs_folder(cache, progress), split)
    pairs = list(stored_pairs(files))
    by_query: dict[str, list[StoredPair]] = {}
    for pair in pairs:
        by_query.setdefault(normalize(pair.query), []).append(pair)
    return RetrievalTask(
        name=f"python_docs-{split}",
        query_ids=[same[0].id for same in by_query.values()],
        queries=[same[0].query for same in by_query.values()],
        document_ids=[pair.id for pair in pairs],
        documents=[pair.document for pair in pairs],
        qrels={same[0].id: {pair.id: 1 for pair in same} for same in by_query.values()},
        fingerprint=hash_files(files),
    )


def python_docs_folder(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the folder of pairs of all packages that are installed, made if need be."""
    packages = installed_packages()
    key = hashlib.sha256(platform.python_version().encode())
    for package in packages:
        key.update(f"\n{package.name} {package.version}".encode())
    for module in EXTRACTION:
        key.update(inspect.getsource(module).encode())
    folder = (cache or default_cache()) / "python_docs" / key.hexdigest()[:32]
    kept = folder.parent / "packages"
    return keep_once(folder, lambda building: _build(building, packages, kept, progress))


def split_files(folder: Path, split: str) -> list[Path]:
    """List the files of a split."""
    if split not in (*SPLITS, ALL):
        cure = f"Choose from {', '.join((*SPLITS, ALL))}"
        raise UserError("python_docs", "has no such split", got=split, cure=cure)
    return [folder / f"{name}.jsonl" for name in (SPLITS if split == ALL else [split])]


def read_report(folder: Path) -> PythonDocsReport:
    """Read what was found when the folder was made."""
    return PythonDocsReport(**json.loads((folder / "report.json").read_text("utf-8")))


def stored_pairs(files: Sequence[Path]) -> Iterator[StoredPair]:
    """Yield the pairs of split files."""
    for path in files:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield StoredPair(**json.loads(line))


def _build(
    folder: Path, packages: Sequence[PythonPackage], kept: Path, progress: Progress | None
) -> None:
    start = time.monotonic()
    read = read_packages(packages, kept, progress)
    raw = [PythonPair(docs.package, documented) for docs in read for documented in docs.objects]
    with without_garbage_collection():
        splits = curate(raw)
    ids: Counter[str] = Counter()
    for split, pairs in splits.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for pair in pairs:
                name = pair.documented.name
                ids[name] += 1
                unique = name if ids[name] == 1 else f"{name}#{ids[name]}"
                stored = StoredPair(unique, pair.query, pair.documented.document, pair.package)
                file.write(json.dumps(asdict(stored)) + "\n")
    report = PythonDocsReport(
        num_packages=len(packages),
        num_files=sum(docs.num_files for docs in read),
        num_unreadable_files=sum(docs.num_unreadable for docs in read),
        num_raw_pairs=len(raw),
        num_distinct_pairs=sum(map(len, splits.values())),
        num_pairs={split: len(pairs) for split, pairs in splits.items()},
        held_out={
            split: dict(Counter(pair.package for pair in splits[split])) for split in HELD_OUT
        },
        seconds=round(time.monotonic() - start, 3),
    )
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=2), "utf-8")
