"""Workflow: is there enough to learn from? Too little ends the work here, and the start stays the result."""

from pathlib import Path

from embedtrain.data.readers.beir import beir_files
from embedtrain.data.readers.beir_index import BeirIndex
from embedtrain.errors import Refused
from embedtrain.files import write_json
from embedtrain.section import Count, Section

FOUND = "found.json"


class RequireStage(Section):
    """Counts what a stage made; fewer than is asked for ends the run with exit code 3."""

    data: str
    """``stage:NAME``: a BEIR folder with ``train.jsonl``."""
    rows: Count = 200
    """Rows that train, at least: fewer are learned by heart."""
    dev: Count = 10
    """Queries that choose the model, at least."""
    test: Count = 10
    """Queries that decide about it, at least."""


def require(work: RequireStage, output: Path) -> Path:
    """Count rows and queries; what is enough is written down.

    Raises:
        Refused: If something is not enough.
    """
    folder = Path(work.data)
    found = {"rows": _lines(folder / "train.jsonl")}
    found |= {split: _queries(folder, split) for split in ("dev", "test")}
    words = {
        "rows": "rows to train on",
        "dev": "queries to choose by",
        "test": "queries to test on",
    }
    lacking = [
        f"{found[name]} {word}, of which {getattr(work, name)} are needed"
        for name, word in words.items()
        if found[name] < getattr(work, name)
    ]
    if lacking:
        raise Refused(
            "The start is kept, nothing was trained: too few queries came through the filters "
            f"({'; '.join(lacking)}). Give more documents, a better writer (--llm) or pairs of your own (--pairs)."
        )
    write_json(output / FOUND, found)
    return output


def _lines(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def _queries(folder: Path, split: str) -> int:
    if not (folder / "qrels" / f"{split}.tsv").is_file():
        return 0
    with BeirIndex(beir_files(folder, split)) as index:
        return sum(1 for _ in index.judged_queries())
