"""Workflow: the score from which on results are shown is found, kept with its model, and told on its card."""

from pathlib import Path

from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, ProbeWish
from embedtrain.evaluation.probes.thresholds import (
    describe_samples,
    measure_thresholds,
    show_threshold,
)
from embedtrain.evaluation.results.threshold import Threshold, read_threshold, write_threshold
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.files import write_file
from embedtrain.models.encoder import TextEncoder
from embedtrain.release.cards.markdown import Row, inline, markdown_table
from embedtrain.release.cards.results import replace_section

HEADING = "## Threshold"
STORED = "stored"


def probe_and_store(subject: Subject, wish: ProbeWish) -> list[Finding]:
    """Probe for a threshold, and keep it in the model's folder and card.

    Raises:
        UserError: If the model is no folder, or the probe finds none.
    """
    folder = Path(subject.name)
    if not folder.is_dir():
        cure = "Leave it out, or name a folder"
        raise UserError("--store", "needs a model folder", got=subject.name, cure=cure)
    samples, threshold = measure_thresholds(subject, wish)
    write_threshold(folder, threshold)
    card = folder / "README.md"
    if card.is_file():
        write_file(card, card_with_threshold(card.read_text(encoding="utf-8"), threshold))
    return [*describe_samples(samples), *show_threshold(threshold)]


def card_with_threshold(card: str, found: Threshold) -> str:
    """Return a card that says, at its end, from which score on results are right."""
    headings = ["Similarity", "Threshold", "Precision", "95 % interval", "Recall", "Queries"]
    row: Row = [
        found.similarity, f"{found.score:.4f}", f"{found.precision:.3f}",
        f"{found.low:.3f} to {found.high:.3f}", f"{found.recall:.3f}", found.num_queries,
    ]  # fmt: skip
    text = (
        f"Among the first {found.depth} results of a query on {inline(found.data)} ({found.num_documents:,} documents), "
        f"for a wanted precision of {found.wanted:g}. The score was chosen on half of the queries and measured on the "
        "others; unjudged documents count as wrong. On a larger corpus wrong documents score higher.\n\n"
        f"{markdown_table(headings, [row])}\n\n"
        '`embedtrain search FOLDER "a query" --threshold stored` shows what scores as much.'
    )
    return f"{replace_section(card, HEADING, '').rstrip()}\n\n{HEADING}\n\n{text}\n"


def read_cut(words: str, name: str, model: TextEncoder | None) -> float:
    """Return the score that ``--threshold`` means: a number, or that of the model's folder.

    Raises:
        UserError: If it is neither, or the folder's is of another model.
    """
    if words == STORED and model is not None:
        return read_threshold(Path(name), model_key(model)).score
    try:
        return float(words)
    except ValueError:
        cure = f"Give a number, or {STORED} for the one in the model folder"
        raise UserError("--threshold", "is no score", got=words, cure=cure) from None
