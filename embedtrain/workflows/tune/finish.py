"""The end of a search: the best and the recipe itself with other seeds, and which of them is written."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from jaxtyping import Float64

from embedtrain.evaluation.measures.statistics import standard_error
from embedtrain.models.build import build_model, load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.recipe.retrieval import dump_recipe
from embedtrain.workflows.prepare import open_data
from embedtrain.workflows.select.measured import Judge
from embedtrain.workflows.tune.report import Tuned, write_tuning
from embedtrain.workflows.tune.study import (
    Study,
    TooLongError,
    Trial,
    best_trials,
    recipe_as_it_is,
)
from embedtrain.workflows.tune.work import Work

KEPT = 3
"""Trials whose weights are kept, and that are done again with other seeds."""
SEEDS = 2
"""Further seeds of these."""
PerSeed = dict[int, list[list[float]]]
"""Of each trial by its number, for each seed the score of each query."""


def contenders(trials: Sequence[Trial]) -> list[Trial]:
    """Return the best trials, and behind them the recipe as it is: the yardstick, however it fared."""
    best, own = best_trials(trials, KEPT), recipe_as_it_is(trials)
    return best if own is None or own in best else [*best, own]


def finish(study: Study, work: Work) -> Tuned:
    """Do the contenders again with other seeds, and write the one that is surely better, or the recipe as it is."""
    trials = study.trials()
    best = [trial for trial in contenders(trials) if work.known(_name(trial))]
    seeds = _repeat(work, best)
    winner, top = choose(best, seeds)
    scores, fresh = _measure(work, best, seeds, winner)
    recipe = work.recipe.model_copy(update={"tune": None})
    if winner is not None:
        kept = {"evaluation": work.recipe.evaluation}
        recipe = work.recipe_of(winner.settings).model_copy(update=kept)
    means = {number: [fmean(one) for one in each] for number, each in seeds.items()}
    found = Tuned(trials, winner, top, means, scores, fresh, dump_recipe(recipe))
    return write_tuning(found, work.output)


def _repeat(work: Work, best: Sequence[Trial]) -> PerSeed:
    scores = {trial.number: [work.known(_name(trial)) or []] for trial in best}
    for seed in range(1, SEEDS + 1):
        for trial in best if len(best) > 1 else []:
            name = f"{_name(trial)}-seed-{seed}"
            if work.known(name) is None:
                again = work.recipe_of(trial.settings, work.recipe.trainer.seed + seed)
                try:
                    work.do(name, again, _ignore)
                except TooLongError:
                    return scores
            scores[trial.number].append(work.scores[name])
    return scores


def choose(best: Sequence[Trial], scores: PerSeed) -> tuple[Trial | None, Trial | None]:
    """Return the trial to keep, and the one of the best mean; None where none is done.

    Means are over the seeds that all trials have: one seed more or less would compare luck. The recipe as it is stays
    unless another gains more than a standard error of the difference per query.
    """
    top = max(best, key=lambda trial: mean_scores(best, scores, trial).mean(), default=None)
    own = recipe_as_it_is(best)
    if top is None or own is None:
        return top, top
    gain = mean_scores(best, scores, top) - mean_scores(best, scores, own)
    return (own if gain.mean() <= standard_error(gain) else top), top


def mean_scores(
    best: Sequence[Trial], scores: PerSeed, trial: Trial
) -> Float64[np.ndarray, " queries"]:
    """Return the score of each query, the mean over the first seeds that all of the best have."""
    shared = min(len(scores[one.number]) for one in best)
    found: Float64[np.ndarray, " queries"] = np.mean(scores[trial.number][:shared], axis=0)
    return found


def _name(trial: Trial) -> str:
    return f"trial-{trial.number:03d}"


def _ignore(_: float, __: float) -> None:
    """Prune nothing."""


def _measure(
    work: Work, best: Sequence[Trial], seeds: PerSeed, winner: Trial | None
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Measure start and winner on the queries that chose, and on the recipe's evaluation."""
    start = build_model(work.recipe.model, work.recipe.trainer.accelerator)
    assert isinstance(start, TextEncoder)
    judge = work.judge
    scores = {"start": judge.decides(start.eval())}
    task = open_data(work.recipe).evaluation
    if winner is None:
        return scores, {}
    scores["winner"] = mean_scores(best, seeds, winner).tolist()
    if task is None:
        return scores, {}
    other = Judge(task, (), judge.cache, judge.precision)
    model = load_encoder(str(work.output / _name(winner) / "model"))
    return scores, {"start": other.decides(start), "winner": other.decides(model)}
