"""What a search leaves: the winner as a recipe, the trials as JSON and a picture."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.evaluation.results.plots import COLORS, MUTED, new_figure, save_figure
from embedtrain.files import write_file, write_json
from embedtrain.workflows.tune.study import Trial, shown

NOTHING = "Tuning found nothing that is surely better: best.yaml is the recipe as it is."


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        trials: In the order of their begin.
        winner: What is kept: the best, or the recipe as it is where that is not surely better; None where none was done.
        top: The best by the mean over its seeds.
        means: Of the best trials and the recipe the score with each seed.
        scores: On the queries that chose, of ``start`` and ``winner``, the score of each query.
        fresh: The same of ``start`` and ``winner`` on the recipe's evaluation, where it has one.
        best: The winner's recipe, as YAML.
    """

    trials: list[Trial]
    winner: Trial | None
    top: Trial | None
    means: dict[int, list[float]]
    scores: dict[str, list[float]]
    fresh: dict[str, list[float]]
    best: str

    @property
    def lines(self) -> list[str]:
        """What a reader wants to know, a sentence each."""
        if self.winner is None or self.top is None:
            return ["No trial fits into this budget: best.yaml is the recipe as it is."]
        said = [f"Best: trial {self.top.number} ({shown(self.top.settings)})"]
        if not self.winner.settings:
            said.append(NOTHING)
        where = "the queries that chose, which flatters"
        said.append(_gain(self.scores["winner"], self.scores["start"], where))
        if self.fresh:
            where = "the recipe's evaluation, which chose nothing"
            said.append(_gain(self.fresh["winner"], self.fresh["start"], where))
        return said


def _gain(after: Sequence[float], before: Sequence[float], where: str) -> str:
    found = compare_paired(np.array(after), np.array(before))
    return (
        f"nDCG@10 {found.difference:+.4f} over the start [{found.low:+.4f}, {found.high:+.4f}] on "
        f"{len(after)} queries of {where}"
    )


def write_tuning(found: Tuned, output: Path) -> Tuned:
    """Write ``best.yaml``, ``tune.json`` and, where matplotlib is installed, ``tune.svg``; return what was found."""
    head = "".join(f"# {line}\n" for line in found.lines)
    write_file(output / "best.yaml", head + found.best)
    winner = None if found.winner is None else found.winner.number
    report = {
        "winner": winner,
        "sentences": found.lines,
        "trials": [asdict(trial) for trial in found.trials],
        "seeds": {str(number): scores for number, scores in found.means.items()},
    }
    write_json(output / "tune.json", report)
    if found.winner is not None and find_spec("matplotlib") is not None:
        draw(found, output / "tune.svg")
    return found


def draw(found: Tuned, path: Path) -> None:
    """Draw the score of each trial that was done, the best so far, and the start."""
    done = [trial for trial in found.trials if trial.score is not None]
    across = [trial.number for trial in done]
    values = [trial.score or 0.0 for trial in done]
    with new_figure(path, width=6.4, height=4.0) as (figure, axes):
        axes.plot(across, values, "o", color=COLORS[0], label="trial")
        best = np.maximum.accumulate(values)
        axes.step(across, best, where="post", color=COLORS[1], label="best so far")
        start = sum(found.scores["start"]) / len(found.scores["start"])
        axes.axhline(start, color=MUTED, linestyle=":", label="start")
        axes.set_xlabel("trial")
        axes.set_ylabel("validation, nDCG@10")
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        save_figure(figure, path)
