"""Workflow: look, plan, compose, run, and say what came of it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedtrain.errors import NothingLeftError, Refused
from embedtrain.files import (
    appearing_folder,
    check_folder,
    read_json,
    refuse_existing,
    write_file,
    write_json,
)
from embedtrain.locks import owns
from embedtrain.release.export import export
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.workflows.fit.compose import compose
from embedtrain.workflows.fit.costs import Asked
from embedtrain.workflows.fit.look import (
    count_human,
    look_at_corpus,
    look_at_pairs,
    measure_reranker,
    measure_speed,
    open_guard,
)
from embedtrain.workflows.fit.plan import Plan, make_plan
from embedtrain.workflows.fit.report import write_fit_report
from embedtrain.workflows.fit.wish import WISH, FitWish, known_wish, refuse_other_wish
from embedtrain.workflows.gate import REFUSED
from embedtrain.workflows.pipeline import (
    RECIPE,
    dump_pipeline,
    find_refusal,
    load_pipeline,
    run_pipeline,
)

PLAN = "plan.json"
MODEL = "model"
CORPUS = "data/corpus.jsonl"
GATE = "gate"
"""The stage whose model is the result."""


@dataclass(frozen=True)
class Fitted:
    """What came of it."""

    model: Path
    """The result: the trained model, or its start."""
    report: Path
    corpus: Path
    """What is searched."""
    refusal: str | None
    """Why it is the start."""


@going_on(SAME_COMMAND)
@owns("output")
def fit(wish: FitWish, output: Path, tell: Callable[[Plan], None] = lambda _: None) -> Fitted:
    """Make a model, or refuse it; the same words on the same folder go on where they were.

    Args:
        wish: What is asked.
        output: Folder of all stages; ``model/`` and ``report.html`` come last.
        tell: Called with the plan before any stage runs.

    Raises:
        UserError: If something that was given cannot be used, or the folder is of another wish.
        Interrupted: If a signal stopped it.
    """
    check_folder("--output", output)
    known = known_wish(output)
    if known is None:
        wish.check()
        refuse_existing(output)
        _begin(wish, output)
    else:
        refuse_other_wish(wish, known, output)
    tell(Plan.model_validate(read_json(output / PLAN)))
    refusal = _run(wish, output)
    return Fitted(output / MODEL, write_fit_report(output), output / CORPUS, refusal)


def _begin(wish: FitWish, output: Path) -> None:
    """Plan, and make the folder with all that the same command needs to go on."""
    if wish.pairs is not None:
        material = look_at_pairs(wish.pairs, wish.corpus)
    else:
        assert wish.corpus is not None
        material = look_at_corpus(wish.corpus)
    human = 0 if wish.queries is None else count_human(wish.queries, material.names)
    guards = tuple(map(open_guard, wish.guards))
    pair = None if wish.reranker is None else measure_reranker(wish.reranker, material.sample)
    speed = measure_speed(wish.model, material.sample)
    asked = Asked(wish.seconds, wish.llm is not None, human, guards, pair)
    plan = make_plan(asked, material, speed)
    pipeline = compose(wish, plan)
    with appearing_folder(output) as building:
        write_json(building / WISH, wish.model_dump())
        write_json(building / PLAN, plan.model_dump())
        write_file(building / RECIPE, dump_pipeline(pipeline))


def _run(wish: FitWish, output: Path) -> str | None:
    """Run the stages, and put the result in its place; return why it is the start, if it is."""
    try:
        run_pipeline(load_pipeline(output / RECIPE), output)
    except (Refused, NothingLeftError):
        if not (output / MODEL).is_dir():
            export(wish.model, output / MODEL)
        reason: str = read_json(output / REFUSED)["decision"]
        return reason
    if not (output / MODEL).is_dir():
        with appearing_folder(output / MODEL) as building:
            shutil.copytree(
                output / GATE / MODEL, building, copy_function=_link, dirs_exist_ok=True
            )
    refusal = find_refusal(output)
    if refusal is not None:
        write_json(output / REFUSED, read_json(output / GATE / REFUSED))
    return refusal


def _link(source: str, target: str) -> None:
    """Give a file a second name, which takes no room; copy it where the disk knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
