"""A search that survives a kill: optuna's sampler and pruner over a journal in a folder."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError, missing_extra
from embedtrain.training.search_space import SearchedKey

JOURNAL = "study.log"
STARTUP = 8
"""Trials before the sampler models what it saw."""
UNPRUNED = 4
"""Finished trials before one is pruned."""
FRACTIONS = (25, 50, 75)
"""Hundredths of its steps at which a trial is compared with others."""
Settings = dict[str, Any]


class TooLongError(UserError):
    """The trial does not fit into what is left of the budget."""


class PrunedError(Exception):
    """The trial is behind the median of the others at the same part of its steps."""


@dataclass(frozen=True)
class Trial:
    """A trial as the journal has it.

    Attributes:
        number: From 0, in the order of their begin.
        settings: Keys of the recipe and what they were set to; empty for the recipe as it is.
        state: ``done``, ``pruned`` or ``failed``.
        score: What a done one reached.
        seconds: What it took.
        stopped_at: Hundredths of its steps where it was pruned.
    """

    number: int
    settings: Settings
    state: str
    score: float | None
    seconds: float
    stopped_at: int | None = None


Evaluate = Callable[[int, Settings, Callable[[float, float], None]], float]
"""Does trial ``number`` with settings; reports ``(fraction, score)`` on the way and returns the score."""


class Study:
    """Trials over a space, kept in a folder.

    Args:
        folder: Of the journal.
        space: What is varied.
        seed: Of what is drawn; with the same trials before, the same settings come next.

    Raises:
        UserError: If optuna is missing.
    """

    def __init__(self, folder: Path, space: Sequence[SearchedKey], seed: int) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise missing_extra("optuna", "tune", "by embedtrain tune") from error
        optuna.logging.set_verbosity(logging.ERROR)
        self._optuna: Any = optuna
        self._space, self._seed = space, seed
        self._planned: list[Settings] = []
        with _quiet():
            self._storage = optuna.storages.JournalStorage(
                JournalFileBackend(str(folder / JOURNAL))
            )
            self._study: Any = optuna.create_study(
                storage=self._storage, study_name="tune", direction="maximize", load_if_exists=True
            )

    def begin(self, first: Sequence[Settings]) -> None:
        """Plan those of the ``first`` trials that are not over, in their order, and then what was killed."""
        over: list[Settings] = []
        killed: list[Settings] = []
        with _quiet():
            for trial in self._study.get_trials(deepcopy=False):
                if trial.state.name == "RUNNING":  # its process is gone
                    self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
                broken = (
                    trial.state.name in ("RUNNING", "FAIL") and "problem" not in trial.user_attrs
                )
                if "settings" in trial.user_attrs:
                    (killed if broken else over).append(trial.user_attrs["settings"])
        self._planned = []
        for settings in [*first, *killed]:
            if settings not in over and settings not in self._planned:
                self._planned.append(settings)

    def run_one(self, evaluate: Evaluate, clock: Callable[[], float]) -> Trial:
        """Do the next trial.

        Raises:
            UserError: If the recipe as it is fails; the next :meth:`begin` plans it again.
        """
        states = self._optuna.trial.TrialState
        planned = bool(self._planned)
        if planned:
            self._enqueue(self._planned.pop(0))
        trial = self._ask()
        settings, began = trial.user_attrs["settings"], clock()

        def report(fraction: float, score: float) -> None:
            mark = max((one for one in FRACTIONS if fraction * 100 >= one), default=None)
            if mark is None or fraction >= 1:
                return
            trial.report(score, mark)
            if trial.should_prune():
                trial.set_user_attr("stopped_at", mark)
                raise PrunedError

        value, state = None, states.COMPLETE
        try:
            value = evaluate(trial.number, settings, report)
        except PrunedError:
            state = states.PRUNED
        except UserError as error:
            state = states.FAIL
            if not settings:
                self._study.tell(trial.number, state=state)
                raise
            if not planned or not isinstance(error, TooLongError):
                trial.set_user_attr("problem", str(error))
        trial.set_user_attr("seconds", clock() - began)
        with _quiet():
            self._study.tell(trial.number, value, state=state)
        return self.trials()[-1]

    def trials(self) -> list[Trial]:
        """Return what is over, in order."""
        names = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Trial(
                one.number,
                one.user_attrs.get("settings", {}),
                names[one.state.name],
                one.value if one.state.name == "COMPLETE" else None,
                one.user_attrs.get("seconds", 0.0),
                one.user_attrs.get("stopped_at"),
            )
            for one in self._study.get_trials(deepcopy=False)
            if one.state.name in names
        ]

    def _enqueue(self, settings: Settings) -> None:
        """Plan a trial with settings that may lie outside of the space; the sampler sees the nearest inside."""
        inside = {
            key.key: _inside(key, settings[key.key]) for key in self._space if key.key in settings
        }
        self._study.enqueue_trial(inside, user_attrs={"settings": settings})

    def _ask(self) -> Any:  # noqa: ANN401 - optuna's trial
        optuna = self._optuna
        with _quiet():
            over = len(self.trials())
            self._study.sampler = optuna.samplers.TPESampler(
                multivariate=True, seed=self._seed + over, n_startup_trials=STARTUP
            )
            self._study.pruner = optuna.pruners.MedianPruner(
                n_startup_trials=UNPRUNED, n_warmup_steps=FRACTIONS[0]
            )
            spread = {key.key: _distribution(optuna, key) for key in self._space}
            trial = self._study.ask(spread)
        if "settings" not in trial.user_attrs:
            drawn = {key.key: _decoded(key, trial.params[key.key]) for key in self._space}
            trial.set_user_attr("settings", drawn)
        return trial


def _distribution(optuna: Any, key: SearchedKey) -> Any:  # noqa: ANN401 - optuna's own
    kinds = optuna.distributions
    if key.choices:
        return kinds.CategoricalDistribution([json.dumps(choice) for choice in key.choices])
    if isinstance(key.low, int) and isinstance(key.high, int):
        return kinds.IntDistribution(key.low, key.high, log=key.log)
    return kinds.FloatDistribution(key.low, key.high, log=key.log)


def _decoded(key: SearchedKey, value: Any) -> Any:  # noqa: ANN401 - any value of a recipe
    return json.loads(value) if key.choices else value


def _inside(key: SearchedKey, value: Any) -> Any:  # noqa: ANN401 - any value of a recipe
    """Return a value of the space: itself, or the nearest end or the first choice."""
    if key.choices:
        words = [json.dumps(choice) for choice in key.choices]
        return json.dumps(value) if json.dumps(value) in words else words[0]
    assert key.low is not None
    assert key.high is not None
    return min(max(value, key.low), key.high)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna's remarks on what it calls experimental out of the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def best_trials(trials: Sequence[Trial], number: int) -> list[Trial]:
    """Return the best of the trials that are done, of equal ones the first; none if all were pruned."""
    done = [trial for trial in trials if trial.score is not None]
    return sorted(done, key=lambda trial: (-(trial.score or 0.0), trial.number))[:number]


def recipe_as_it_is(trials: Sequence[Trial]) -> Trial | None:
    """Return the done trial of the recipe itself, which all are compared with: after a kill it is not number 0."""
    return next((one for one in trials if not one.settings and one.score is not None), None)


def shown(settings: Mapping[str, Any]) -> str:
    """Return settings in words."""
    if not settings:
        return "the recipe as it is"
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in settings.items()
    )
