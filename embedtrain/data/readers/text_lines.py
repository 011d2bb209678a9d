"""Files of text, line by line, with errors that name the line."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.outside import reading, told

BLOCK = 2**20
SHOWN = 1000
"""Characters of a line that an error is given."""
GIVEN: dict[str, str] = {}
"""Files that hold what was given in memory, and where it was given, for errors."""


def open_bytes(path: Path) -> BufferedReader | gzip.GzipFile:
    """Open a file for reading, through gzip where the name says so."""
    with reading(path):
        refuse_no_file(path)
        return gzip.GzipFile(path) if path.suffix.lower() == ".gz" else path.open("rb")


def refuse_no_file(path: Path) -> None:
    """Refuse what is neither a file nor a folder nor missing: a pipe would be waited for, for ever.

    Raises:
        UserError: If it is so.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(path, "is no ordinary file", cure="Write its content to a file")


def read_lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yield (line number, offset in bytes, line) of a UTF-8 file, line ends kept.

    A byte order mark is dropped.
    """
    number, start = 0, 0
    with reading(path), open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except (
                UnicodeDecodeError
            ) as error:  # a block for each line would take as long as the line
                raise told(f"{path}:{number}", error) from None
            yield number, start, text
            start += len(line)
    if number == 0:
        raise UserError(path, "is empty", cure="Give a file with at least one row")


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield (place, object) of a JSON Lines file; blank lines are passed over."""
    for number, _, line in read_lines(path):
        if line.isspace():
            continue
        given = GIVEN.get(str(path))
        place = f"{path}:{number}" if given is None else f"{given} row {number - 1}"
        yield place, parse_object(place, line)


def parse_object(place: str, line: str) -> dict[str, object]:
    """Parse one line of JSON that must be an object."""
    try:
        value = json.loads(line)
        is_text = "\\u" not in line or _is_encodable(value)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        raise UserError(
            place,
            f"is not valid JSON ({reason})",
            got=line[:SHOWN].strip(),
            cure="Write one object per line",
        ) from None
    if not is_text:
        raise UserError(
            place, "holds half of a surrogate pair", got=line[:SHOWN].strip(), cure="Mend the text"
        )
    if not isinstance(value, dict):
        raise UserError(place, "must be a JSON object", got=value, cure="Write one object per line")
    return value


def _is_encodable(value: object) -> bool:
    """Whether all text in ``value`` is Unicode; JSON can spell half of a pair, as scraped data does."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def count_lines(path: Path) -> int:
    """Count the line ends of a file, at about a gigabyte a second; 0 for a packed one, which would take longer."""
    if path.suffix.lower() == ".gz":
        return 0
    with reading(path), path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def hash_files(paths: Iterable[Path]) -> str:
    """Hash the bytes of files, in the order given; names do not enter."""
    total = hashlib.sha256()
    for path in paths:
        with reading(path):
            refuse_no_file(path)
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
