"""Which readers there are, what each needs, and how it is started for a folder."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from embedtrain.errors import UserError, missing_extra
from embedtrain.verification import programs
from embedtrain.verification.asked import AskedReader
from embedtrain.verification.ours import Ours
from embedtrain.verification.process import program
from embedtrain.verification.programmed import ProgrammedReader, command_of
from embedtrain.verification.servers import infinity, serve
from embedtrain.verification.values import Bound, Reader

FLOAT32 = Bound(1e-5)
HALF = Bound(1e-3)
LIBRARIES = {
    "sentence-transformers": ("sentence_transformers", "evaluation"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "openvino"),
    "llama.cpp": ("xllamacpp", "llama"),
    "serve": ("fastapi", "serve"),
}
"""Readers that may be in this Python: the package and the extra that brings it."""
LLAMA_SERVER = "llama-server"
"""The program of llama.cpp, taken where it is and no package has llama.cpp."""
STORES = {"qdrant": "qdrant_client", "lancedb": "lancedb", "pgvector": "psycopg"}
"""Engines that keep vectors, and their clients."""
ADDRESSED = ("openai", "tei")
PLACES = {
    "infinity": "URL, or the Python that has it",
    "fastembed": "the Python that has it",
    "transformers.js": "the folder whose node_modules have it",
    "pgvector": "URL",
    **dict.fromkeys(ADDRESSED, "URL"),
}
"""Readers whose place must be said, and what it is."""
NAMES = (*LIBRARIES, *PLACES, "qdrant", "lancedb")
DTYPES = {"model.onnx": "fp32", "model_fp16.onnx": "fp16", "model_quantized.onnx": "q8"}
"""What transformers.js calls the numbers of a graph."""


@dataclass(frozen=True)
class Wanted:
    """A reader that was asked for, and where it is."""

    name: str
    where: str = ""
    """A Python, or an address; empty for this Python."""


@dataclass(frozen=True)
class Opening:
    """A row of the report, before its reader is started."""

    name: str
    start: Callable[[], AbstractContextManager[Reader]]


def parse_readers(words: list[str]) -> list[Wanted]:
    """Read ``NAME`` or ``NAME=WHERE``, several with commas between.

    Raises:
        UserError: If a name is unknown, or a place is missing.
    """
    found = []
    for word in (one.strip() for words_ in words for one in words_.split(",")):
        name, _, where = word.partition("=")
        if name not in NAMES:
            raise UserError("--with", "names no reader", got=name, cure=f"Choose from {', '.join(NAMES)}")  # fmt: skip
        if not where and name in PLACES:
            raise UserError("--with", f"says not where {name} is", cure=f"Write {name}={PLACES[name]}")  # fmt: skip
        if where and name not in ("infinity", "pgvector") and (name in ADDRESSED) != ("://" in where):  # fmt: skip
            what = "an address" if name in ADDRESSED else PLACES.get(name, "the path of a Python")
            raise UserError("--with", f"needs {what} for {name}", got=where)
        found.append(Wanted(name, where))
    return found


def usual_readers(folder: Path) -> list[Wanted]:
    """Return the readers that are installed and find something to read."""
    files = {"onnxruntime": _graphs(folder), "openvino": _openvino(folder), "llama.cpp": _gguf(folder)}  # fmt: skip
    readers = [Wanted(name) for name in LIBRARIES if _is_here(name)]
    readers = [one for one in readers if files.get(one.name, True)]
    names = ("qdrant", "lancedb")
    return [*readers, *(Wanted(name) for name in names if find_spec(STORES[name]))]


def openings_of(wanted: Wanted, folder: Path, ours: Ours) -> list[Opening]:
    """Return what to start: one for each file that a reader reads.

    Raises:
        UserError: If the reader is not installed, or there is nothing for it to read.
    """
    library = LIBRARIES.get(wanted.name)
    if library and not wanted.where and not _is_here(wanted.name):
        raise missing_extra(library[0], library[1], f"for {wanted.name}")
    python = wanted.where or sys.executable
    if wanted.name == "sentence-transformers":
        start = partial(_program, wanted.name, python, {"folder": str(folder)}, FLOAT32, adds_prompts=True)  # fmt: skip
        return [Opening(wanted.name, start)]
    if wanted.name == "serve":
        return [Opening("serve", partial(serve, str(folder), python, FLOAT32))]
    if wanted.name == "infinity":
        return [Opening("infinity", partial(infinity, str(folder), wanted.where, FLOAT32))]
    if wanted.name in ADDRESSED:
        return [Opening(wanted.name, partial(_asked, wanted))]
    ways = {
        "onnxruntime": _onnxruntime, "openvino": _openvino_rows, "llama.cpp": _llama, "fastembed": _fastembed,
        "transformers.js": _transformers_js,
    }  # fmt: skip
    return ways[wanted.name](folder, python, ours)


def _onnxruntime(folder: Path, python: str, ours: Ours) -> list[Opening]:
    files = _needed(folder, _graphs(folder), "a graph", "--onnx")
    return [
        Opening(
            f"onnxruntime {path.name}",
            partial(_program, f"onnxruntime {path.name}", python, _graph(folder, path, ours), bound_of(path)),
        )
        for path in files
    ]  # fmt: skip


def _openvino_rows(folder: Path, python: str, ours: Ours) -> list[Opening]:
    """Each file in float32, and in what OpenVINO chooses by itself, which is bf16 where the CPU has it."""
    rows = []
    for path in _needed(folder, _openvino(folder), "a graph", "--onnx"):
        exact = bound_of(path)
        for hint, bound in (("f32", exact), (None, HALF if exact is FLOAT32 else exact)):
            name = f"openvino {path.name} {hint or 'default'}"
            settings = {**_graph(folder, path, ours), "hint": hint}
            rows.append(Opening(name, partial(_program, name, python, settings, bound)))
    return rows


def _is_here(name: str) -> bool:
    if name == "llama.cpp" and (find_spec("llama_cpp") or which(LLAMA_SERVER)):
        return True
    return find_spec(LIBRARIES[name][0]) is not None


def _llama(folder: Path, where: str, ours: Ours) -> list[Opening]:
    """Each file by the llama.cpp of a Python, or by the program ``llama-server``."""
    program = where if Path(where).name.startswith(LLAMA_SERVER) else ""
    if where == sys.executable and not (find_spec("llama_cpp") or find_spec("xllamacpp")):
        program = which(LLAMA_SERVER) or ""
    python = sys.executable if program else where
    window = max(ours.length("query"), ours.length("document"))
    more = {"window": window, "normalize": ours.contract.similarity == "cosine", "program": program}
    return [
        Opening(
            f"llama.cpp {path.name}",
            partial(_program, f"llama.cpp {path.name}", python, {"file": str(path), **more}, bound_of(path)),
        )
        for path in _needed(folder, _gguf(folder), "a GGUF file", "--gguf f16")
    ]  # fmt: skip


def _fastembed(folder: Path, python: str, ours: Ours) -> list[Opening]:
    return [
        Opening(
            f"fastembed {path.name}",
            partial(
                _program, f"fastembed {path.name}", python,
                {"folder": str(folder), "file": f"onnx/{path.name}", "dim": ours.model.dim}, bound_of(path),
            ),
        )
        for path in _needed(folder, _states(folder), "a graph with states", "--transformers-js")
    ]  # fmt: skip


def _transformers_js(folder: Path, modules: str, ours: Ours) -> list[Opening]:
    windows = {mode: ours.length(mode) for mode in ("query", "document", "plain")}
    rows = []
    for path in _needed(folder, _states(folder), "a graph with states", "--transformers-js"):
        name = f"transformers.js {path.name}"
        wanted = {"modules": modules, "folder": str(folder), "dtype": DTYPES[path.name], "windows": windows}  # fmt: skip
        script = str(Path(programs.__path__[0]) / "reader.mjs")
        command = ["node", script, json.dumps(wanted)]
        rows.append(Opening(name, partial(_run, name, command, bound_of(path))))
    return rows


def bound_of(path: Path) -> Bound:
    """Return how far vectors of a file may be off, by what its name says of its numbers."""
    name = path.name.lower()
    if "q8_0" in name or "weights" in name:
        return Bound(5e-3, overlap=0.95)
    if "dynamic" in name:
        return Bound(5e-2, mean=1e-2, overlap=0.95, depends_on_batch=True)
    if "int8" in name or "quantized" in name:
        return Bound(0.2, mean=1e-2, overlap=0.95)
    return Bound(1e-4) if "fp16" in name or path.suffix == ".gguf" else FLOAT32


@contextmanager
def _program(
    name: str, python: str, settings: dict[str, object], bound: Bound, *, adds_prompts: bool = False
) -> Iterator[Reader]:
    reader = name.partition(" ")[0]
    command = command_of(python, {"reader": reader, **settings})
    with _run(name, command, bound, adds_prompts=adds_prompts) as running:
        yield running


@contextmanager
def _run(
    name: str, command: list[str], bound: Bound, *, adds_prompts: bool = False
) -> Iterator[Reader]:
    with program(name, command) as running:
        yield ProgrammedReader(name, running, bound, adds_prompts=adds_prompts)


@contextmanager
def _asked(wanted: Wanted) -> Iterator[Reader]:
    address, _, model = wanted.where.partition("#")
    reader = AskedReader(wanted.name, address, HALF, model=model, tei=wanted.name == "tei")
    try:
        yield reader
    finally:
        reader.close()


def _graph(folder: Path, path: Path, ours: Ours) -> dict[str, object]:
    windows = {mode: ours.length(mode) for mode in ("query", "document", "plain")}
    pad = ours.tokenizer.pad_token_id or 0
    return {"folder": str(folder), "file": str(path), "windows": windows, "pad": pad}


def _graphs(folder: Path) -> list[Path]:
    return sorted(folder.glob("onnx/embedding*.onnx"))


def _states(folder: Path) -> list[Path]:
    return [path for name in DTYPES if (path := folder / "onnx" / name).is_file()]


def _openvino(folder: Path) -> list[Path]:
    return sorted(folder.glob("openvino/*.xml")) or _graphs(folder)[:1]


def _gguf(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gguf"))


def _needed(folder: Path, files: list[Path], what: str, option: str) -> list[Path]:
    if not files:
        cure = f"Run `embedtrain export {folder} --output NEW {option}`"
        raise UserError(folder, f"has not {what}", cure=cure)
    return files
