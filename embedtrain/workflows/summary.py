"""Facts that the end of a run prints beside its scores: seconds, and what a query found before and after."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedtrain.files import write_json
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.run_files import read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.ranks.processes import own_shard


def note(run: RunFolder, **facts: object) -> None:
    """Keep facts in the run's summary, in the place of those of the same names; the first rank does."""
    if own_shard().is_first:
        write_json(run.summary, {**read_summary(run), **facts})


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
