"""Model folders with one thing wrong, and what came of loading them."""

import contextlib
import copy
import json
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution

WRONG = (None, True, -1, 10**12, 0.5, "x", [1], {"x": 1})
"""In the place of any value; the key itself is left out as well."""
GONE = object()
PATIENCE = 20  # seconds
SPARE = 2**31  # bytes that one load may take
TEXTS = ["red cat runs", "a small bird"]

Keys = tuple[str | int, ...]


def places(content: Any, above: Keys = ()) -> Iterator[Keys]:
    """Every key of a JSON value; of long lists and vocabularies the first few."""
    inner = content.items() if isinstance(content, dict) else ()
    if isinstance(content, list):
        inner = enumerate(content)
    for number, (key, value) in enumerate(inner):
        if number >= 40 or (number >= 2 and (isinstance(content, list) or "vocab" in above)):
            return
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(content: Any, keys: Keys, value: object) -> Any:
    """A copy with ``value`` at ``keys``."""
    copied = copy.deepcopy(content)
    owner = copied
    for key in keys[:-1]:
        owner = owner[key]
    if value is GONE:
        del owner[keys[-1]]
    else:
        owner[keys[-1]] = value
    return copied


def cases(folder: Path) -> list[tuple[Path, Keys, object]]:
    """Every key of every JSON file with every wrong value, and each file as a whole."""
    files = sorted([*folder.rglob("*.json"), *folder.rglob("*.metadata")])
    found: list[tuple[Path, Keys, object]] = []
    for path in files:
        content = json.loads(path.read_text())
        found += [(path, (), value) for value in WRONG]
        found += [(path, keys, value) for keys in places(content) for value in (*WRONG, GONE)]
    return found


def with_fault(path: Path, keys: Keys, value: object, act: Callable[[], object]) -> object:
    """What ``act`` gives while ``path`` holds a wrong value."""
    whole = path.read_text()
    content = json.loads(whole)
    path.write_text(json.dumps(changed(content, keys, value) if keys else value))
    try:
        return act()
    finally:
        path.write_text(whole)


def fault_of(folder: Path) -> str | None:
    """What is wrong with how a folder is loaded: nothing if it is refused in a line, or encodes twice alike."""
    try:
        with _bounded():
            first, second = (_encode(folder) for _ in range(2))
    except UserError as error:
        text = str(error)
        if "\n" in text or "memory" in text or "allocat" in text:
            return f"refused too late: {text[:300]}"
        return None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__module__}.{type(error).__name__}: {str(error)[:300]}"
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return "encodes differently each time"
    if not all(one.isfinite().all() for one in first):
        return "encodes to numbers that are not finite"
    return None


def _encode(folder: Path) -> list[torch.Tensor]:
    model = load_encoder(str(folder)).eval()
    vectors = []
    for side in ("query", "document"):
        texts = model.tokenization.encode(TEXTS, side)
        with torch.no_grad():
            found = model.embed(texts, Execution(10_000), side)
        vectors.append(found if isinstance(found, torch.Tensor) else found.tokens)
    return vectors


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Neither hours nor all memory for one load."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, before[1]))
    old = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"took more than {PATIENCE} s")


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Write the tensors of a file again after ``change``."""
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
