"""Candidates from a ranking that some other system made: a TREC run file or JSON."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from embedtrain.data.batches import pad_rows
from embedtrain.data.readers.text_lines import hash_files, read_lines
from embedtrain.errors import UserError
from embedtrain.files import read_json
from embedtrain.mining.search import CandidateSource
from embedtrain.mining.task import MiningTask
from embedtrain.section import Section


class RunSearch(Section):
    """Candidates listed in a file.

    TREC lines ``query Q0 document rank score tag``, or JSON ``{query: {document: score}}``.
    """

    kind: Literal["run"] = "run"
    path: str
    """The file; ``.json`` is read as JSON, anything else as TREC lines."""
    quota: PositiveFloat = 1.0
    """Share of the candidates, relative to the other sources'."""


def open_run(config: RunSearch, name: str, task: MiningTask) -> CandidateSource:
    """Read a run; queries it does not list get no candidates from it."""
    path = Path(config.path)
    run = _read_json(path) if path.suffix == ".json" else _read_trec(path)
    row_of = task.row_of_document
    ranked: dict[str, NDArray[np.int64]] = {}
    for query_id, scores in run.items():
        unknown = next((document for document in scores if document not in row_of), None)
        if unknown is not None:
            raise UserError(
                f"{path} query {query_id}",
                "names a document that the data lack",
                got=unknown,
                cure="Give the run of this corpus",
            )
        rows = sorted((-score, row_of[document]) for document, score in scores.items())
        ranked[query_id] = np.array([row for _, row in rows], dtype=np.int64)
    if not any(query_id in ranked for query_id in task.query_ids):
        raise UserError(path, "lists none of the queries", cure="Give the run of these queries")
    nothing = np.zeros(0, dtype=np.int64)

    def search(rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        ids = [task.query_ids[row] for row in rows.tolist()]
        return pad_rows([ranked.get(query_id, nothing)[:depth] for query_id in ids])

    return CandidateSource(name, config.quota, search, {"kind": "run", "hash": hash_files([path])})


def _read_trec(path: Path) -> dict[str, dict[str, float]]:
    run: dict[str, dict[str, float]] = {}
    for number, _, line in read_lines(path):
        cells = line.split()
        if not cells:
            continue
        place = f"{path}:{number}"
        if len(cells) != 6:
            cure = "Write query, Q0, document, rank, score and tag"
            raise UserError(place, f"has {len(cells)} cells instead of 6", got=line, cure=cure)
        run.setdefault(cells[0], {})[cells[2]] = _score(cells[4], place)
    return run


def _read_json(path: Path) -> dict[str, dict[str, float]]:
    content = read_json(path)
    cure = "Write {query: {document: score}}"
    if not isinstance(content, dict):
        raise UserError(path, "must be an object", got=content, cure=cure)
    for query_id, scores in content.items():
        if not isinstance(scores, dict):
            raise UserError(f"{path} {query_id}", "must be an object", got=scores, cure=cure)
    return {
        query_id: {document: _score(value, f"{path} {query_id}") for document, value in scores.items()}
        for query_id, scores in content.items()
    }  # fmt: skip


def _score(value: object, place: str) -> float:
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise UserError(place, "must have a number as its score", got=value) from None
    if not math.isfinite(score):
        raise UserError(place, "has a score that is not finite", got=value)
    return score
