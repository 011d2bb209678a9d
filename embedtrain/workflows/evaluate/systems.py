"""Several systems that search the same corpus as one: models, BM25 and rankings from files, and their fusion."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.evaluation.measures.tuned_fusion import (
    Judged,
    Tuned,
    Weights,
    assign_folds,
    cross_validate,
    fit_weights,
    weight_grid,
)
from embedtrain.evaluation.results.result import IndexFigures
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.fusion import (
    Fusion,
    Pool,
    Rule,
    normalise,
    pool_lists,
    weights_for,
)
from embedtrain.workflows.evaluate.as_one import name_as_one, sum_costs
from embedtrain.workflows.evaluate.asking import PLAIN, Asking
from embedtrain.workflows.evaluate.by_units import find_by_units, units_of, with_units
from embedtrain.workflows.evaluate.first_stage import (
    RUN,
    FirstStage,
    System,
    find_first,
    is_model,
    open_system,
)
from embedtrain.workflows.evaluate.index_cost import measure_index
from embedtrain.workflows.evaluate.tasks import Wish, labels_of

DEPTH = 1000
"""Results of each system that are fused, unless the user says otherwise."""


@dataclass(frozen=True)
class Fusing:
    """What searches beside the first system, and how the lists become one."""

    others: tuple[str, ...] = ()
    """Models, ``bm25``, ``bm25:key=value,...`` or ``run:FILE``."""
    rule: Rule | Literal["tuned"] = "sum"
    weights: Weights | None = None
    """One of each system, the first included."""
    depth: int = DEPTH
    """Results of a query that each system gives."""
    tune_on: str | None = None
    """Split whose queries ``tuned`` learns weights on; None learns on folds of those that are measured."""
    asking: Asking = PLAIN
    """How the systems are asked; rankings from files are not, and feedback is for the first system."""
    units: bool = False
    """Whether documents are found by their best unit of ``units.jsonl``; rankings from files are taken as they are."""
    save_runs: Path | None = None
    """Folder for the ranking and the result of each system."""

    def fusion(self) -> Fusion:
        """Return the rule with its settings.

        Raises:
            UserError: If they do not go together.
        """
        if self.rule == "tuned" and self.weights is not None:
            cure = "Leave out one of them"
            raise UserError("--weights", "are what --fuse tuned learns", cure=cure)
        if self.tune_on is not None and self.rule != "tuned":
            raise UserError("--tune-on", "is for weights that are learned", cure="Add --fuse tuned")
        rule, num_systems = self.rule, 1 + len(self.others)
        if rule == "tuned":
            weight_grid(num_systems)
            rule = "sum"
        try:
            fusion = Fusion(rule=rule, weights=self.weights)
        except ValidationError as error:
            said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise UserError("--fuse and --weights", f"do not go together: {said}") from error
        weights_for(fusion, num_systems)
        return fusion

    def settings(self, tuned: Tuned | None, weights: Weights | None) -> dict[str, object]:
        """Return what a result says of the fusion, with the weights if they are not equal by default."""
        settings: dict[str, object] = {"fusion": self.rule, "depth": self.depth}
        if self.weights is not None or self.rule == "tuned":
            learned = [list(one) for one in tuned.folds] if tuned else None
            settings["weights"] = learned or list(weights or ())
        return settings


@dataclass(frozen=True)
class Found:
    """What systems found for the queries of a task, and what that became."""

    stage: FirstStage
    """As one list, of one system."""
    parts: Sequence[FirstStage]
    weights: Weights | None = None
    """None where each fold of queries has its own."""
    seconds: float = 0.0
    """Of the fusion, per query."""
    tuned: Tuned | None = None
    equal: SearchResult | None = None
    """The lists under equal weights, where weights were learned."""


@dataclass(frozen=True)
class Systems:
    """Systems that search, opened; one alone is taken as it is."""

    systems: Sequence[System]
    wishes: Sequence[Wish]
    """One of each: what the user wishes of vectors and texts is wished of the first."""
    fusing: Fusing
    learning: Mapping[Path, Retrieval] = field(default_factory=dict)
    """For the folder of each task the split of it that weights are learned on."""

    def find(self, task: Retrieval, num_results: int) -> Found:
        """Search the corpus of a task for its queries, keeping at least so many results of each.

        Raises:
            UserError: If lists and rule do not go together.
        """
        if len(self.systems) == 1:
            stage = self._find_one(0, task, num_results)
            return Found(stage, [stage])
        parts = self.search(task)
        fusion = self.fusing.fusion()
        tuning = self.fusing.rule == "tuned"
        weights = self._fit(task, fusion) if tuning else weights_for(fusion, len(parts))
        start = time.perf_counter()
        pool = _pool(parts, fusion)
        found, tuned = _fuse(pool, fusion, weights, num_results), None
        seconds = (time.perf_counter() - start) / len(task.task.queries)
        if weights is None:
            tuned = cross_validate(_judged(pool, task), self._folds(task), num_results)
            found = tuned.found
        cost = sum_costs([one.cost for one in parts], seconds, self.wishes[0].price_per_hour)
        stage = FirstStage(name_as_one(parts, self.fusing.settings(tuned, weights)), found, cost)
        equal = _fuse(pool, fusion, None, num_results) if tuning else None
        return Found(stage, parts, weights, seconds, tuned, equal)

    def search(self, task: Retrieval) -> list[FirstStage]:
        """Let every system search the corpus of a task for its queries."""
        depth = self.fusing.depth
        return [self._find_one(number, task, depth) for number in range(len(self.systems))]

    def _find_one(self, number: int, task: Retrieval, depth: int) -> FirstStage:
        system, wish, asking = self.systems[number], self.wishes[number], self.fusing.asking
        if number > 0:
            asking = replace(asking, feedback=None)

        def find(searched: Retrieval, wanted: int, timed: bool) -> FirstStage:
            own = replace(wish, efficiency=timed and wish.efficiency)
            return find_first(system, searched, own, wanted, asking)

        if self.fusing.units and not system.name.startswith(RUN):
            return find_by_units(find, task, depth)
        return find(task, depth, True)

    def index_figures(self, task: Retrieval) -> IndexFigures | None:
        """Measure the index of the first system, if it searches by one."""
        subject = self.systems[0].subject
        if subject is None or subject.index is None:
            return None
        searched, share = task, 1.0
        if self.fusing.units:
            units = units_of(task)
            searched, share = with_units(task, units), len(units.ids) / len(task.task.documents)
        figures = measure_index(subject, searched.task, timed=self.wishes[0].efficiency)
        return figures.model_copy(update={"bytes_per_document": figures.bytes_per_document * share})

    def check(self, tasks: Sequence[Retrieval]) -> "Systems":
        """Return the systems with all that they learn from, before anything searches.

        Raises:
            UserError: If weights cannot be learned from the queries of a task, or of its other split.
        """
        if self.fusing.rule != "tuned":
            return self
        if self.fusing.tune_on is None:
            for task in tasks:
                self._folds(task)
            return self
        split = self.fusing.tune_on
        return replace(
            self, learning={task.files.path: _other_split(task, split) for task in tasks}
        )

    def _folds(self, task: Retrieval) -> Int64[np.ndarray, " queries"]:
        """Deal queries out; those of one label, or of one text, go together."""
        data, labels = task.task, labels_of(task, self.wishes[0])
        texts = [text.strip().casefold() for text in data.queries]
        return assign_folds([labels[name] for name in data.query_ids] if labels else texts)

    def _fit(self, task: Retrieval, fusion: Fusion) -> Weights | None:
        """Learn weights on another split; None if there is none."""
        if self.fusing.tune_on is None:
            return None
        other = self.learning[task.files.path]
        untimed = replace(self, wishes=[replace(one, efficiency=False) for one in self.wishes])
        return fit_weights(_judged(_pool(untimed.search(other), fusion), other))


def _other_split(task: Retrieval, split: str) -> Retrieval:
    other = open_task(str(task.files.path), split, task.kind)
    assert isinstance(other, Retrieval)
    if shared := set(task.task.queries) & set(other.task.queries):
        cure = "Tune on other queries than those measured"
        raise UserError("--tune-on", "holds a query that is measured", got=min(shared), cure=cure)
    return other


def open_systems(first: str, wish: Wish, fusing: Fusing) -> Systems:
    """Load the systems; only the first is told what the user wishes of vectors and texts.

    Raises:
        UserError: If one cannot be loaded, or the fusion cannot be done.
    """
    fusing.fusion()
    fusing.asking.check()
    names = [first, *fusing.others]
    _refuse_unused(names, wish, fusing)
    plain = Wish(
        wish.data, wish.split, wish.task, wish.clusters, efficiency=wish.efficiency,
        price_per_hour=wish.price_per_hour, precision=wish.precision,
    )  # fmt: skip
    wishes = [wish, *(plain for _ in fusing.others)]
    for name in names:
        if not is_model(name) and name.startswith(RUN) and fusing.tune_on is not None:
            cure = "Leave out --tune-on: folds of the queries are taken then"
            raise UserError("--tune-on", "needs systems that can search again", got=name, cure=cure)
    systems = [open_system(name, own) for name, own in zip(names, wishes, strict=True)]
    return Systems(systems, wishes, fusing)


def _refuse_unused(names: Sequence[str], wish: Wish, fusing: Fusing) -> None:
    """Refuse what none of the systems takes."""
    given = {
        "--index": wish.index,
        "--dim": wish.compression.dim,
        "--quantize": wish.compression.quantize,
        "--feedback": fusing.asking.feedback,
    }
    for flag, value in given.items():
        if value is not None and not is_model(names[0]):
            raise UserError(flag, "is for models", got=names[0], cure="Leave it out")
    for flag, wished in (("--forms", fusing.asking.forms is not None), ("--units", fusing.units)):
        if wished and all(name.startswith(RUN) for name in names):
            problem = "is for systems that search, not for rankings from files"
            raise UserError(flag, problem, got=names[0], cure="Leave it out")


def _pool(parts: Sequence[FirstStage], fusion: Fusion) -> Pool:
    return pool_lists([normalise(one.found, fusion) for one in parts])


def _fuse(pool: Pool, fusion: Fusion, weights: Weights | None, num_results: int) -> SearchResult:
    """Fuse under some weights; None is for equal ones."""
    if fusion.rule == "zipper":
        return pool.interleave(num_results)
    return pool.add_up(weights or (1.0,) * len(pool.values), num_results)


def _judged(pool: Pool, task: Retrieval) -> Judged:
    data = task.task
    return Judged(pool, data.query_ids, data.document_ids, data.qrels)
