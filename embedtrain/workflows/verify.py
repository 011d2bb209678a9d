"""Workflow: other programs read a model folder, and their vectors are compared with ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.readers.beir import bounded
from embedtrain.errors import UserError
from embedtrain.models.build import load_model
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.verification.comparison import Comparison, Data, needed_scores
from embedtrain.verification.ours import Ours
from embedtrain.verification.process import ReaderFailed
from embedtrain.verification.readers import (
    STORES,
    Wanted,
    openings_of,
    parse_readers,
    usual_readers,
)
from embedtrain.verification.stores import compare_store
from embedtrain.verification.texts import spread
from embedtrain.verification.values import Row
from embedtrain.workflows.load.corpus import read_corpus
from embedtrain.workflows.load.verify import FIRST_WORDS
from embedtrain.workflows.prepare import load_task

QUERY_SHARE = 4
"""A fourth of the texts are queries."""


@dataclass(frozen=True)
class VerifyWish:
    """What is to be compared."""

    folder: str
    readers: Sequence[str] = ()
    """``NAME`` or ``NAME=WHERE``; none for all that are installed and find something to read."""
    data: str | None = None
    """A BEIR folder, ``python_docs`` or a file; None for a few texts that are built in."""
    split: str = "test"
    num_texts: int = 200


@dataclass(frozen=True)
class Report:
    """What came of it."""

    rows: Sequence[Row]
    comparison: Comparison

    @property
    def exit_code(self) -> int:
        """1 where vectors are wrong, 2 where a reader did not start, 0 otherwise."""
        verdicts = {row.verdict for row in self.rows}
        return 1 if "wrong" in verdicts else 2 if "did not start" in verdicts else 0


def verify(wish: VerifyWish, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Run readers on texts, one after the other, and compare.

    ``tell`` gets a line before each reader is started, and one of what it came to.

    Raises:
        UserError: If the folder is no dense model, a reader is unknown or not installed, or there is nothing for it to
            read. A reader that dies or hangs is a row of the report.
    """
    folder = Path(wish.folder)
    if not folder.is_dir():
        cure = "Write one by `embedtrain export`"
        raise UserError(
            "verify", "needs a model folder on this machine", got=wish.folder, cure=cure
        )
    wanted = parse_readers(list(wish.readers)) or usual_readers(folder)
    model = load_model(wish.folder)
    if not isinstance(model, DenseEncoder):
        cure = "`embedtrain export` reloads others by sentence-transformers"
        raise UserError(wish.folder, "is no model of one vector per text", cure=cure)
    ours = Ours(model)
    openings = [(one, openings_of(one, folder, ours)) for one in wanted if one.name not in STORES]
    stores = [one for one in wanted if one.name in STORES]
    comparison = Comparison(ours, gather(wish.data, wish.split, wish.num_texts))
    scores = comparison.scores if not wish.readers else None
    if stores and wish.readers:
        scores = needed_scores(comparison)
    rows = []
    for _, some in openings:
        for opening in some:
            tell(f"asking {opening.name}")
            rows.append(comparison.row(opening))
            tell(_told(rows[-1]))
    for one in stores if scores is not None else ():
        tell(f"asking {one.name}")
        rows.append(_store(one, comparison))
        tell(_told(rows[-1]))
    return Report(rows, comparison)


def _told(row: Row) -> str:
    figures = (f"{name} {value:.3g}" for name, value in row.figures.items())
    return ", ".join((f"{row.reader}: {row.verdict}", *figures))


def _store(wanted: Wanted, comparison: Comparison) -> Row:
    try:
        return compare_store(wanted.name, wanted.where, needed_scores(comparison))
    except ReaderFailed as error:
        return Row(wanted.name, failure=str(error))


def gather(data: str | None, split: str, number: int) -> Data:
    """Return about so many texts: queries, the documents that are relevant to them, and others.

    Raises:
        UserError: If there is no such data, or it is not usable.
    """
    if data is None:
        return Data()
    num_queries = max(1, number // QUERY_SHARE)
    if Path(data).is_file():
        texts = [entry.text for entry in read_corpus(data) if entry.text.strip()]
        documents = spread(texts, number - num_queries)
        starts = [" ".join(text.split()[:FIRST_WORDS]) for text in documents]
        return Data(spread(starts, num_queries), documents)
    task = bounded(load_task(data, split), num_queries, number - num_queries)
    rows = [row for row, text in enumerate(task.documents) if text.strip()]
    back = {task.document_ids[row]: new for new, row in enumerate(rows)}
    asked = [row for row, text in enumerate(task.queries) if text.strip()]
    qrels = {
        new: {
            back[one]: gain for one, gain in task.qrels[task.query_ids[row]].items() if one in back
        }
        for new, row in enumerate(asked)
    }
    judged = {row: one for row, one in qrels.items() if any(gain > 0 for gain in one.values())}
    return Data([task.queries[row] for row in asked], [task.documents[row] for row in rows], judged)
