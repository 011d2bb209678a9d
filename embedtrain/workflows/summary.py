"""Facts that the end of a run prints beside its scores: seconds, and what a query found before and after."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from embedtrain.data.held_out import sufficient_fraction
from embedtrain.files import write_json
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.run_files import read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.fitting import Start
from embedtrain.training.ranks.processes import own_shard
from embedtrain.workflows.first_recipe import LOOKED_AT
from embedtrain.workflows.prepare import Prepared

OF_THE_END = {"out_of_time", "exports_start", "blend"}
"""Facts that only hold of where the steps ended."""


def note(run: RunFolder, **facts: object) -> None:
    """Keep facts in the run's summary, in the place of those of the same names; the first rank does."""
    if own_shard().is_first:
        write_json(run.summary, {**read_summary(run), **facts})


def note_begin(run: RunFolder, prepared: Prepared, filled: Sequence[str]) -> None:
    """Note what the end of the run says of the data: what is held out, a query, and how some could be measured on."""
    note(run, held_out=prepared.held_out, filled=filled, **_measured(prepared))


def _measured(prepared: Prepared) -> dict[str, Any]:
    if prepared.evaluation is not None:
        return {"query": prepared.evaluation.queries[0]}
    every = chain.from_iterable(source.examples() for source in prepared.texts)
    rows = list(islice(every, LOOKED_AT + 1))
    fraction = sufficient_fraction(rows, 1, is_whole=len(rows) <= LOOKED_AT)
    return {"query": rows[0].query, "fraction": fraction}


def note_end(run: RunFolder, end: Start, num_steps: int) -> None:
    """Note where the clock ended the steps, for reports."""
    if end.out_of_time:
        note(run, out_of_time={"step": end.step, "of": num_steps})


def forget_end(run: RunFolder) -> None:
    """Drop what the summary says of an end that the run goes on behind; the first rank does."""
    known: dict[str, Any] = {**read_summary(run)}
    if own_shard().is_first and known.keys() & OF_THE_END:
        write_json(run.summary, {name: known[name] for name in known if name not in OF_THE_END})


@contextmanager
def timed(run: RunFolder, part: str) -> Iterator[None]:
    """Add the seconds of a part of the run to its summary; a resumed run adds to those before."""
    start = time.perf_counter()
    yield
    add_seconds(run, part, time.perf_counter() - start)


def add_seconds(run: RunFolder, part: str, seconds: float) -> None:
    """Add to the seconds of a part of the run."""
    known = read_summary(run).get("seconds", {})
    note(run, seconds=known | {part: round(known.get(part, 0) + seconds, 1)})


def tell_cut(model: TextModel) -> None:
    """Say how many pairs of a cross-encoder did not fit, once they are trained on; the first rank does."""
    if isinstance(model, CrossEncoderModel) and model.num_cut and own_shard().is_first:
        share = model.num_cut / model.num_joined
        console.print(
            f"{share:.1%} of the pairs were longer than model.length: their documents were cut"
        )
