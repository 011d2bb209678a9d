"""What each installed package documents: read by several processes, kept by package and version.

A package is read again only when its version, Python's or the code that reads it changes. Run as a module
it is one of the processes: files come in on standard input, what they document goes out.
"""

import gc
import hashlib
import inspect
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from embedtrain.data.examples import Progress
from embedtrain.data.python_docs import docstring_text, docstrings, python_packages
from embedtrain.data.python_docs.docstrings import DocumentedObject, documented_objects
from embedtrain.data.python_docs.python_packages import PythonPackage
from embedtrain.files import write_file
from embedtrain.outside import reading
from embedtrain.seals import checksum_of, identity_of, set_aside
from embedtrain.workers import answer_all, num_cores, workers

READERS = (docstring_text, docstrings, python_packages)
"""The modules whose text decides what is found in a file."""
BYTES_PER_PROCESS = 2_000_000
"""Of source text: starting a process takes as long as reading so much."""
FILES_AT_ONCE = 64

File = tuple[str, Path]
Found = list[DocumentedObject] | None
"""What a file documents; None if it cannot be parsed."""


@dataclass(frozen=True)
class PackageDocs:
    """What the files of a package document, in their order."""

    package: str
    num_files: int
    num_unreadable: int
    objects: list[DocumentedObject]


def read_packages(
    packages: Sequence[PythonPackage], cache: Path, progress: Progress | None = None
) -> list[PackageDocs]:
    """Return what packages document, from the cache or from their files."""
    code = "".join(inspect.getsource(module) for module in READERS)
    places = []
    for package in packages:
        key = f"{platform.python_version()}\n{package.name} {package.version}\n{code}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        places.append(cache / f"{package.name}-{package.version}-{digest}.docs")
    known = {n: docs for n, place in enumerate(places) if (docs := _load(place))}
    files = {n: packages[n].modules() for n in range(len(packages)) if n not in known}
    found = iter(_read_files([file for own in files.values() for file in own], progress))
    for n, own in files.items():
        results = [next(found) for _ in own]
        objects = [documented for one in results if one for documented in one]
        known[n] = PackageDocs(packages[n].name, len(own), results.count(None), objects)
        stored = asdict(known[n]) | {"objects": [list(vars(one).values()) for one in objects]}
        content = json.dumps(stored)
        write_file(places[n], f"{checksum_of(content.encode())}\n{content}")
    return [known[n] for n in range(len(packages))]


def _load(place: Path) -> PackageDocs | None:
    """Return what is known of a package; None if nothing is, or its checksum does not fit."""
    identity = identity_of(place)
    if identity is None:
        return None
    with reading(place):
        checksum, _, content = place.read_bytes().partition(b"\n")
    if checksum != checksum_of(content).encode():
        set_aside(place, "is damaged", identity)
        return None
    stored = json.loads(content)
    return PackageDocs(**stored | {"objects": [DocumentedObject(*o) for o in stored["objects"]]})


def _read_files(files: Sequence[File], progress: Progress | None) -> list[Found]:
    """Return what each file documents; several processes share large work."""
    num_bytes = sum(path.stat().st_size for _, path in files if path.is_file())
    num_processes = min(num_cores(), num_bytes // BYTES_PER_PROCESS)
    batches = [files[i : i + FILES_AT_ONCE] for i in range(0, len(files), FILES_AT_ONCE)]
    found: list[Found] = []
    with _readers(num_processes) as read, without_garbage_collection():
        for results in read(batches):
            for result in results:
                found.append(result)
                if progress:
                    progress(len(found), len(files))
    return found


@contextmanager
def _readers(number: int) -> Iterator[Callable[[Sequence[Sequence[File]]], Iterable[list[Found]]]]:
    """Yield what reads batches of files in their order: with this process, or with ``number`` others."""
    if number < 2:
        yield lambda batches: ([_read_file(*file) for file in batch] for batch in batches)
        return
    with workers("embedtrain.data.python_docs.extraction", number, "python_docs") as ask:

        def read(batches: Sequence[Sequence[File]]) -> Iterator[list[Found]]:
            questions = ([(module, str(path)) for module, path in batch] for batch in batches)
            answers = [ask(json.dumps(question).encode()) for question in questions]
            for answer in answers:
                found = json.loads(answer.result())
                yield [
                    None if one is None else [DocumentedObject(*o) for o in one] for one in found
                ]

        yield read


def _read_file(module: str, path: Path) -> Found:
    """Return what a file documents; None if it is no Python of this version."""
    try:
        return list(documented_objects(path.read_bytes(), module))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Halve the time of parsing: syntax trees and hashes are millions of objects without cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def answer(question: bytes) -> bytes:
    """Return what files document, for the process that asks."""
    found = [_read_file(module, Path(path)) for module, path in json.loads(question)]
    return json.dumps(
        [
            None if one is None else [list(vars(documented).values()) for documented in one]
            for one in found
        ]
    ).encode()


if __name__ == "__main__":
    gc.disable()
    answer_all(answer)
