"""The Python files of the installed packages, found without importing any."""

import os
import platform
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

STANDARD_LIBRARY = "python"
SKIPPED_FOLDERS = re.compile(
    r"""(?:tests?|.*_tests?|testing|conftest|benchmarks?|examples?|_?vendor(?:ed)?|_?extern(?:al|als)?
    |third_?party|site-packages|dist-packages|__pycache__|idlelib|lib2to3|turtledemo|ensurepip
    |generated|_generated)""",
    re.VERBOSE,
)
SKIPPED_FILES = re.compile(r"test_.*|.*_tests?|tests?|conftest|setup|.*_pb2(?:_grpc)?")
SKIPPED_PACKAGES = frozenset({"embedtrain"})


@dataclass(frozen=True)
class PythonPackage:
    """An installed distribution; ``list_files`` finds its files only when they are asked for."""

    name: str
    version: str
    list_files: Callable[[], Iterable[tuple[str, Path]]]

    def modules(self) -> list[tuple[str, Path]]:
        """List the files worth reading, each after the name under which it is imported."""
        return [
            (module_name(name), path) for name, path in sorted(self.list_files()) if is_wanted(name)
        ]


def installed_packages(search_path: list[str] | None = None) -> list[PythonPackage]:
    """List the packages on ``search_path``, by name; by default ``sys.path`` and the standard library."""
    found = distributions() if search_path is None else distributions(path=search_path)
    version = platform.python_version()
    packages = (
        {}
        if search_path
        else {STANDARD_LIBRARY: PythonPackage(STANDARD_LIBRARY, version, standard_library)}
    )
    for distribution in found:
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if name and name not in packages and name not in SKIPPED_PACKAGES:
            # The first of a name on the path is the one that Python imports.
            packages[name] = PythonPackage(
                name, distribution.version, partial(_files, distribution)
            )
    return [packages[name] for name in sorted(packages)]


def standard_library() -> Iterator[tuple[str, Path]]:
    """Yield the files that come with Python; packages installed among them are not entered."""
    root = Path(sysconfig.get_path("stdlib"))
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not SKIPPED_FOLDERS.fullmatch(name)]
        for file in files:
            path = Path(folder, file)
            yield path.relative_to(root).as_posix(), path


def _files(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    for path in distribution.files or ():  # None where the installer wrote no record
        if path.suffix == ".py":
            yield path.as_posix(), Path(str(distribution.locate_file(path)))


def is_wanted(path: str) -> bool:
    """Tell a module that a package is for from tests, examples, generated code and vendored copies."""
    *folders, name = PurePosixPath(path).parts
    stem, dot, suffix = name.rpartition(".")
    return (
        bool(dot)
        and suffix == "py"
        and not SKIPPED_FILES.fullmatch(stem)
        and all(re.fullmatch(r"\w+", part) for part in (*folders, stem))
        and not any(SKIPPED_FOLDERS.fullmatch(part.lower()) for part in folders)
    )


def module_name(path: str) -> str:
    """Turn ``a/b/__init__.py`` into ``a.b`` and ``a/c.py`` into ``a.c``."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
