"""Workflow: of a trained model and its start, the better one on held-out queries becomes the result."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from embedtrain.data.sources import load_task
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.gain import Ship, Verdict, decide, show_gain
from embedtrain.evaluation.measures.statistics import PairedComparison
from embedtrain.evaluation.results.result import EvaluationResult
from embedtrain.evaluation.results.wording import metric_title
from embedtrain.evaluation.tasks.retrieval import METRICS
from embedtrain.files import appearing_folder, default_cache, read_json, write_json
from embedtrain.locks import owns
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.release.export import export
from embedtrain.section import Count, Section
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.training.settings import Others
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.gate_parts import by_what_trained
from embedtrain.workflows.hold_out import write_beir
from embedtrain.workflows.rivals import with_fewer

VERDICT = "gate.json"
PART = "part.json"
REFUSED = "refused.json"
"""Only there where the start is the result."""


class Judged(Section):
    """Queries with judgments."""

    path: str
    """A BEIR folder, or ``python_docs``."""
    split: str = "test"
    synthetic: bool = False
    """Whether a program wrote these queries: reports say so beside every figure."""


class GateStage(Judged):
    """Measures the model and its start, and exports the better one as ``stage:NAME/model``; ``gate.json`` says why.

    ``path`` and ``split`` name what decides: queries that neither trained nor chose the model.
    """

    model: str
    """The trained one: ``stage:NAME/model``."""
    base: str
    """What it started from: a folder or a Hub id."""
    also: tuple[Judged, ...] = ()
    """Measured as well, decides nothing: the synthetic queries, where human ones decide."""
    guards: tuple[Judged, ...] = ()
    """What must not be forgotten: other data, on which the model may not lose more than ``max_loss``."""
    max_loss: float = Field(default=0.01, ge=0, le=1)
    """Of nDCG@10, between 0 and 1."""
    ship: Ship = "evidence"
    """``evidence``: the interval of the gain must lie above zero; ``point``: the mean must."""
    train: str | None = None
    """Rows that trained: how many of the queries that decide stand among theirs, and the gain on those whose answers
    trained and on the others, are in ``gate.json``."""
    num_documents: Count | None = None
    """Of each piece of data so many are searched at most, what answers a query always among them; null searches all."""
    others: Others = "random"
    """Which others: any, or with ``bm25`` those that BM25 finds for the queries."""
    precision: Precision = "auto"
    """What texts are encoded in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU."""


@going_on(SAME_COMMAND)
@owns("output")
def gate(work: GateStage, output: Path) -> Path:
    """Decide, and write ``model/``, the results, ``gate.json`` and, where the start is kept, ``refused.json``.

    Started again it measures nothing twice. What is decided does not depend on how often.

    Raises:
        UserError: If a model or the data cannot be used.
    """
    main = METRICS[0]
    pairs = {part: _measure(work, judged, output / part) for part, judged in measured_by(work)}
    before, after = pairs["test"]
    start = before.metrics[main].value
    queries = "synthetic" if work.synthetic else "held-out"
    guards = {
        f"{found.data.name} ({found.data.split})": _gain(found)
        for part, (_, found) in pairs.items()
        if part.startswith("guard")
    }
    verdict = decide(
        _gain(after), start, guards, queries=queries, max_loss=work.max_loss, ship=work.ship
    )
    times = _note_use(after)
    if times > 1:
        said = f"These test queries have decided about {times} models by now: each makes a gain by chance more likely"
        verdict = replace(verdict, warnings=(*verdict.warnings, said))
    chosen = work.model if verdict.ships else work.base
    if not (output / "model").is_dir():
        export(chosen, output / "model")
    facts = _facts(work, verdict, start, after.metrics[main].value, guards)
    if work.train is not None:
        facts |= by_what_trained(load_task(work.path, work.split), work.train, before, after)
    if searched := parts_searched(work, output):
        facts["searched"] = searched
    if not verdict.ships:
        write_json(output / REFUSED, facts)
    write_json(output / VERDICT, facts)
    console.print(facts["decision"])
    return output


def read_verdict(output: Path) -> dict[str, Any]:
    """Return what ``gate.json`` says: ``ships``, ``decision``, ``reasons``, ``warnings``, ``gain``, ...

    Raises:
        UserError: If the folder holds none.
    """
    found = read_json(output / VERDICT)
    if not isinstance(found, dict) or "decision" not in found:
        raise UserError(output / VERDICT, "is not what a gate writes", cure="Run the gate again")
    return found


def measured_by(work: GateStage) -> list[tuple[str, Judged]]:
    """Return what a gate measures on, by the names of the folders of results: ``test`` decides."""
    also = [(f"also-{number}", one) for number, one in enumerate(work.also, 1)]
    guards = [(f"guard-{number}", one) for number, one in enumerate(work.guards, 1)]
    return [("test", work), *also, *guards]


def _measure(
    work: GateStage, judged: Judged, folder: Path
) -> tuple[EvaluationResult, EvaluationResult]:
    """Evaluate the start, then the model against it."""
    path = _searched(work, judged, folder)
    wish = Wish([path], judged.split, "retrieval", efficiency=False, precision=work.precision)
    before = evaluate_tasks(work.base, wish, folder / "before.json")[0]
    against = Wish(
        wish.data, wish.split, wish.task, baseline=folder / "before.json", efficiency=False,
        precision=work.precision,
    )  # fmt: skip
    return before, evaluate_tasks(work.model, against, folder / "after.json")[0]


def _searched(work: GateStage, judged: Judged, folder: Path) -> str:
    """Return where the queries and what is searched lie: where they are too many documents, a part of them is written."""
    if work.num_documents is None:
        return judged.path
    small = small_folder(judged, folder)
    if not small.is_dir():
        task = load_task(judged.path, judged.split)
        fewer = with_fewer(task, None, work.num_documents, work.others)
        if fewer is task:
            return judged.path
        with appearing_folder(small) as building:
            write_beir(
                building,
                zip(fewer.document_ids, fewer.documents, strict=True),
                zip(fewer.query_ids, fewer.queries, strict=True),
                {judged.split: fewer.qrels},
            )
            write_json(
                building / PART, {"documents": len(fewer.documents), "of": len(task.documents)}
            )
    return str(small)


def small_folder(judged: Judged, folder: Path) -> Path:
    """Return where a part of the documents would lie; it has the name of the whole, which reports show."""
    return folder / "searched" / Path(judged.path.removeprefix("stage:")).name


def parts_searched(work: GateStage, output: Path) -> dict[str, dict[str, int]]:
    """Return how many documents were searched, and of how many, where it was a part of them."""
    places = {
        name: small_folder(judged, output / name) / PART for name, judged in measured_by(work)
    }
    return {name: read_json(place) for name, place in places.items() if place.is_file()}


def _note_use(after: EvaluationResult) -> int:
    """Count the different models that these queries have decided about, on this machine; this one is among them."""
    assert after.model is not None
    place = default_cache() / "decided" / f"{after.data.fingerprint[:32]}.json"
    known: list[str] = read_json(place, optional=True).get("models", [])
    if after.model.weights not in known:
        known.append(after.model.weights)
        write_json(place, {"models": known})
    return len(known)


def _gain(after: EvaluationResult) -> PairedComparison:
    assert after.comparison is not None
    return after.comparison.metrics[METRICS[0]]


def _facts(
    work: GateStage,
    verdict: Verdict,
    before: float,
    after: float,
    guards: dict[str, PairedComparison],
) -> dict[str, Any]:
    return {
        "ships": verdict.ships,
        "decision": _decision(
            verdict, before, after, "synthetic" if work.synthetic else "held-out"
        ),
        "reasons": verdict.reasons,
        "warnings": verdict.warnings,
        "metric": METRICS[0],
        "before": before,
        "after": after,
        "synthetic": work.synthetic,
        "gain": asdict(verdict.gain),
        "guards": {name: asdict(found) for name, found in guards.items()},
        "model": work.model if verdict.ships else work.base,
    }


def _decision(verdict: Verdict, before: float, after: float, queries: str) -> str:
    """Say in one sentence what the result is."""
    gain, metric = verdict.gain, metric_title(METRICS[0])
    if not verdict.ships:
        return f"The start is kept, the trained model is not shipped: {_joined(verdict.reasons)}."
    return (
        f"The trained model is better than its start and is shipped: {metric} went from {before:.3f} to {after:.3f} on "
        f"{gain.num:,} {queries} queries ({show_gain(gain)})."
    )


def _joined(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)
