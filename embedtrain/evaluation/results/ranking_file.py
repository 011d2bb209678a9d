"""Rankings in TREC's format: query id, ``Q0``, document id, rank, score and a name, as trec_eval reads them.

White space separates the fields. An id that is empty or holds white space or control characters is therefore
written as ``%`` and its characters percent-encoded, and so is one that begins with ``%``; all others as they are.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from embedtrain.errors import NOT_PRINTED, UserError
from embedtrain.evaluation.measures.metrics import Run
from embedtrain.files import write_file
from embedtrain.outside import reading

MARK = "%"
FIELDS = 6


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a ranking, which :func:`read_run` and trec_eval read; the best document of a query first.

    Raises:
        UserError: If it cannot be written.
    """
    lines = []
    for query, found in run.items():
        ordered = sorted(found.items(), key=lambda pair: -pair[1])
        for rank, (document, score) in enumerate(ordered, 1):
            ids = _escaped(query), _escaped(document)
            lines.append(f"{ids[0]}\tQ0\t{ids[1]}\t{rank}\t{score!r}\t{tag}\n")
    write_file(path, "".join(lines))


@contextmanager
def written_beside(run: Run, path: Path, tag: str) -> Iterator[None]:
    """Write a ranking, unless it is empty, that belongs to what the block writes; if that fails, neither stays."""
    if run:
        write_run(run, path, tag)
    try:
        yield
    except BaseException:
        if run:
            path.unlink(missing_ok=True)
        raise


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a ranking: query id to document id to score.

    Raises:
        UserError: If it cannot be read; names the line.
    """
    run: dict[str, dict[str, float]] = {}
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t") if line.count("\t") == FIELDS - 1 else line.split()
        if len(fields) != FIELDS:
            cure = "Write query id, Q0, document id, rank, score and a name"
            raise UserError(f"{path}:{number}", "has not six fields", got=line, cure=cure)
        found, document = run.setdefault(_plain(fields[0]), {}), _plain(fields[2])
        if document in found:
            cure = "Keep one of the lines"
            raise UserError(f"{path}:{number}", "lists a document again", got=document, cure=cure)
        with reading(f"{path}:{number}"):
            found[document] = float(fields[4])
    return run


def _escaped(name: str) -> str:
    """Return an id as one field."""
    odd = not name or name.startswith(MARK) or re.search(r"\s", name) or NOT_PRINTED.search(name)
    return MARK + quote(name, safe="", errors="surrogatepass") if odd else name


def _plain(field: str) -> str:
    """Return the id that a field stands for."""
    return unquote(field[1:], errors="surrogatepass") if field.startswith(MARK) else field
