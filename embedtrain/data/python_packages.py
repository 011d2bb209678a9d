"""The Python files of the installed packages, found without importing any."""

import platform
import re
import sysconfig
from dataclasses import dataclass
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
    """An installed distribution: its files by the name under which each is imported."""

    name: str
    version: str
    files: tuple[tuple[str, Path], ...]


def installed_packages(search_path: list[str] | None = None) -> list[PythonPackage]:
    """List the packages on ``search_path``, by name; by default ``sys.path`` and the standard library."""
    if search_path is None:
        found, packages = distributions(), [standard_library()]
    else:
        found, packages = distributions(path=search_path), []
    seen = {STANDARD_LIBRARY} | SKIPPED_PACKAGES
    for distribution in found:
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if name and name not in seen:  # the first on the path is the one that is imported
            seen.add(name)
            packages.append(PythonPackage(name, distribution.version, _files(distribution)))
    return sorted((package for package in packages if package.files), key=lambda each: each.name)


def standard_library() -> PythonPackage:
    """Return the modules that come with Python as one package."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [(path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py")]
    return PythonPackage(STANDARD_LIBRARY, platform.python_version(), _modules(paths))


def _files(distribution: Distribution) -> tuple[tuple[str, Path], ...]:
    listed = distribution.files or []  # None where the installer wrote no record
    return _modules(
        [(path.as_posix(), Path(str(distribution.locate_file(path)))) for path in listed]
    )


def _modules(paths: list[tuple[str, Path]]) -> tuple[tuple[str, Path], ...]:
    return tuple((module_name(name), path) for name, path in sorted(paths) if is_wanted(name))


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
