"""What can be wrong with a file that a command reads, by what the file is; each fault changes it in place."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

Fault = Callable[[Path], object]
Keys = tuple[str | int, ...]
WRONG = {
    "null": None,
    "a list": [],
    "an object": {"a": {"b": 1}},
    "a text": "x\ud800",
    "an empty text": "",
    "a negative": -1,
    "a huge number": 10**12,
    "a fraction": 0.5,
    "true": True,
}
DEEP = 100_000


def _truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def _flip(path: Path, seed: int) -> None:
    content = bytearray(path.read_bytes())
    random = Random(seed)
    for _ in range(3):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _insert(path: Path, piece: bytes) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + piece + content[middle:])


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_utf16(path: Path) -> None:
    path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode("utf-16"))


ANY: dict[str, Fault] = {
    "emptied": partial(_truncate, share=0.0),
    "cut in half": partial(_truncate, share=0.5),
    "cut near the end": lambda path: os.truncate(path, max(path.stat().st_size - 7, 0)),
    **{f"flipped bits {seed}": partial(_flip, seed=seed) for seed in range(3)},
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": lambda path: path.write_bytes(Random(0).randbytes(path.stat().st_size)),
    "missing": Path.unlink,
    "a folder": _to_folder,
    "a link to itself": _to_link,
    "a pipe": _to_pipe,
    "a NUL inside": partial(_insert, piece=b"\0"),
    "a byte that is not UTF-8": partial(_insert, piece=b"\xff"),
}
TEXT: dict[str, Fault] = {
    "UTF-16": _to_utf16,
    "a mark at the start": lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
    "other line ends": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),
    "deep brackets": lambda path: path.write_text("[" * DEEP + "]" * DEEP + "\n"),
    "a long line": partial(_insert, piece=b"x" * 2_000_000),
    "a number too long": lambda path: path.write_text("1" + "0" * 5000 + "\n"),
}


def faults_of(path: Path) -> Iterator[tuple[str, Fault]]:
    """Yield the faults of a file: those of any, then those of its form, key by key where it has keys."""
    yield from ANY.items()
    if path.suffix in (".json", ".jsonl", ".yaml", ".tsv", ".txt", ".csv"):
        yield from TEXT.items()
    if path.suffix == ".json":
        yield from _json_faults(path)
    elif path.suffix == ".jsonl":
        yield from _row_faults(path)
    elif path.suffix == ".yaml":
        yield from _yaml_faults(path)
    elif path.suffix == ".safetensors":
        yield from _weight_faults(path)
    elif path.suffix == ".tsv":
        yield from _judgment_faults()


def _json_faults(path: Path) -> Iterator[tuple[str, Fault]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    for kind, value in WRONG.items():
        yield f"is {kind}", partial(_write_json, content=value)
    for keys in _places(content):
        yield f"{'.'.join(map(str, keys))} missing", partial(_change_json, keys=keys, wrong=())
        for kind, value in WRONG.items():
            change = partial(_change_json, keys=keys, wrong=(value,))
            yield f"{'.'.join(map(str, keys))} is {kind}", change


def _places(content: object, depth: int = 2) -> Iterator[Keys]:
    """Yield the way to each value, as far as ``depth``; of lists and long objects the first ones."""
    if isinstance(content, dict):
        pairs: list[tuple[str | int, object]] = list(content.items())[:40]
    elif isinstance(content, list):
        pairs = list(enumerate(content))[:1]
    else:
        return
    for key, value in pairs:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in _places(value, depth - 1))


def _put(content: Any, keys: Keys, wrong: tuple[object, ...]) -> None:
    """Put a value in the place of another, or nothing."""
    for key in keys[:-1]:
        content = content[key]
    if wrong:
        content[keys[-1]] = wrong[0]
    else:
        del content[keys[-1]]


def _change_json(path: Path, keys: Keys, wrong: tuple[object, ...]) -> None:
    # Only now: of thousands of faults that a command's files can have, few are tried.
    content = json.loads(path.read_text(encoding="utf-8"))
    _put(content, keys, wrong)
    _write_json(path, content)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _row_faults(path: Path) -> Iterator[tuple[str, Fault]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[3])
    odd = {
        "no object": "[1]",
        "no JSON": "{",
        "nothing": "{}",
        "NaN": "NaN",
        "two keys": '{"a":1,"a":2}',
    }
    for name, line in odd.items():
        yield f"a row is {name}", partial(_replace_row, lines=lines, line=line)
    yield "a row stands twice", partial(_replace_row, lines=lines, line=lines[0])
    for key in row:
        rest = {name: value for name, value in row.items() if name != key}
        yield f"a row lacks {key}", partial(_replace_row, lines=lines, line=json.dumps(rest))
        for kind, value in {**WRONG, "a path": "../../x\n/y"}.items():
            line = json.dumps({**row, key: value})
            yield f"{key} of a row is {kind}", partial(_replace_row, lines=lines, line=line)


def _replace_row(path: Path, lines: list[str], line: str) -> None:
    path.write_text("\n".join([*lines[:3], line, *lines[4:]]) + "\n", encoding="utf-8")


def _yaml_faults(path: Path) -> Iterator[tuple[str, Fault]]:
    import yaml

    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    for name, text in {
        "a bomb of anchors": bomb,
        "a tag": "!!python/object/apply:os.system ['touch pwned']\n",
        "a date": "trainer: {steps: 2020-01-01}\n",
        "two of a key": path.read_text() + "description: again\n",
        "a tab": "data:\n\tsources: []\n",
        "infinity": "trainer: {learning_rate: .inf}\n",
    }.items():
        yield name, partial(_write_text, text=text)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for keys in _places(content):
        for kind, value in WRONG.items():
            if kind != "a text":  # a lone surrogate cannot be written as YAML
                change = partial(_change_yaml, keys=keys, value=value)
                yield f"{'.'.join(map(str, keys))} is {kind}", change


def _change_yaml(path: Path, keys: Keys, value: object) -> None:
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _put(content, keys, (value,))
    _write_text(path, yaml.safe_dump(content))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _judgment_faults() -> Iterator[tuple[str, Fault]]:
    for name, line in {
        "two columns": "q1\td1",
        "four columns": "q1\t0\td1\t1",
        "a fraction": "q1\td1\t0.5",
        "a word": "q1\td1\tyes",
        "an unknown query": "nobody\td1\t1",
        "an unknown document": "q1\tnobody\t1",
        "an empty id": "\td1\t1",
        "another grade": "q1\td1\t2\nq1\td1\t0",
        "a huge number": f"q1\td1\t{10**30}",
    }.items():
        yield f"a line with {name}", partial(_append, line=line)


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def _weight_faults(path: Path) -> Iterator[tuple[str, Fault]]:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    first, last = next(iter(tensors)), list(tensors)[-1]
    changes = {
        "lacks its first tensor": {name: one for name, one in tensors.items() if name != first},
        "lacks its last tensor": {name: one for name, one in tensors.items() if name != last},
        "has a further tensor": {**tensors, "further": torch.ones(3)},
        "has a tensor of another shape": {**tensors, last: torch.ones(3, 5)},
        "has integers": {**tensors, last: tensors[last].to(torch.int64)},
        "has NaN": {**tensors, last: torch.full_like(tensors[last], torch.nan)},
        "has no tensor": {},
    }
    for name, changed in changes.items():
        yield name, partial(_write_weights, tensors=changed)
    header = struct.pack("<Q", 2**60)
    yield (
        "has a header of 2^60 bytes",
        lambda path: path.write_bytes(header + path.read_bytes()[8:]),
    )


def _write_weights(path: Path, tensors: dict[str, object]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})  # type: ignore[arg-type]


def remove(path: Path) -> None:
    """Remove whatever a fault has put in a file's place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
