"""Workflow: sets of texts become tasks with answers, whose texts a language model can then be asked to weigh (SCARLet)."""

from importlib.metadata import version
from typing import Any

from embedtrain.data.draw import number
from embedtrain.errors import NothingLeftError, UserError
from embedtrain.files import write_json
from embedtrain.synthesis.context_rows import (
    ContextRow,
    answer_lines,
    candidate_lines,
    figures,
    judged,
    training_lines,
)
from embedtrain.synthesis.context_writer import ContextWriter
from embedtrain.synthesis.contexts import Context, draw_contexts
from embedtrain.synthesis.corpus import Corpus
from embedtrain.synthesis.language_writer import LanguageWriter
from embedtrain.synthesis.output import SynthesisFolder, write_lines
from embedtrain.synthesis.report import SHOWN
from embedtrain.synthesis.settings import SynthesisConfig


def write_contexts(
    folder: SynthesisFolder,
    found: Corpus,
    config: SynthesisConfig,
    writer: LanguageWriter,
    fingerprint: str,
) -> None:
    """Let a language model write tasks with answers about contexts, filter them, and write rows, answers and report.

    Raises:
        UserError: If there are too few chunks, or the model does not read as much as a context.
        NothingLeftError: If no task is left.
    """
    contexts, asking = _contexts(found, config, writer)
    rows = judged(asking.write(contexts), config, writer.name)
    kept = [one for one in rows if one.row.kept]
    write_lines(folder.training, training_lines(kept, title=config.chunks.title))
    write_lines(folder.answers, answer_lines(kept))
    write_lines(folder.candidates, candidate_lines(rows))
    if not kept:
        ended = writer.tally.ended
        problem = (
            f"gives no task yet: {ended}" if ended else f"gives no task; {len(rows):,} written"
        )
        cure = "Look into candidates.jsonl of the output, or start the same command again"
        raise NothingLeftError(folder.path, problem, cure=cure)
    report = {
        "fingerprint": fingerprint,
        "corpus": found.figures(),
        "contexts": len(contexts),
        "waterfall": figures(rows),
        "splits": {},
        "sample": _sample(kept, config.seed),
        "version": version("embedtrain"),
        "writer": writer.name,
        "language_model": writer.report(),
        "notes": ["All tasks are for training: nothing is held out.", *writer.notes()],
    }
    write_json(folder.report, report)


def forecast_contexts(
    found: Corpus, config: SynthesisConfig, writer: LanguageWriter
) -> dict[str, Any]:
    """Return what writing would take at most, with nothing asked: requests and tokens about, and their price."""
    contexts, asking = _contexts(found, config, writer)
    requests = [asking.request(one) for one in contexts]
    read = sum(writer.chat.size(turn.content) for one in requests for turn in one.turns)
    written = sum(one.max_tokens for one in requests)
    told = {"contexts": len(contexts), "prompt_tokens": read, "completion_tokens_at_most": written}
    cost = writer.config.endpoint.cost(read, written)
    return told if cost is None else {**told, "cost": round(cost, 6)}


def refuse_other_ways(writer: object, *, like: bool) -> None:
    """Refuse contexts without a language model, or with queries to imitate.

    Raises:
        UserError: If there is no language model, or there are such queries.
    """
    if not isinstance(writer, LanguageWriter):
        cure = "Add --llm, or leave contexts out"
        raise UserError("contexts", "are written about by a language model", cure=cure)
    if like:
        raise UserError("--like", "is for queries of single texts", cure="Leave it or contexts out")


def _contexts(
    found: Corpus, config: SynthesisConfig, writer: LanguageWriter
) -> tuple[list[Context], ContextWriter]:
    assert config.contexts is not None
    contexts = draw_contexts(found.choice.chunks, config.contexts, config.seed)
    return contexts, ContextWriter(writer, config.contexts, config.seed)


def _sample(kept: list[ContextRow], seed: int) -> list[dict[str, object]]:
    drawn = sorted(kept, key=lambda one: number(seed, "shown", one.name))[:SHOWN]
    return [
        {
            "query": one.written.found.query,
            "answer": one.written.found.answer,
            "task": one.written.task,
            "positives": [text[:400] for text in one.texts(needed=True, title=True)],
        }
        for one in drawn
    ]
