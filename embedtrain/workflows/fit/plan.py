"""What a budget of wall time suffices for: how many queries, which trials, how many steps of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embedtrain.errors import UserError
from embedtrain.section import Section
from embedtrain.training.automatic import Facts, choose_trainer
from embedtrain.units import show_seconds
from embedtrain.workflows.fit.costs import (
    EXPORTING,
    STARTING,
    Asked,
    Costs,
    Queries,
    costs_of,
    trials_of,
)
from embedtrain.workflows.fit.depth import DEPTHS, RERANKING, Depth
from embedtrain.workflows.fit.look import Material, Speed

QUERIES_PER_CHUNK = 2
KEPT = 0.4
"""Share of the queries written that pass the filters, before it is known."""
SAFE = 0.8
"""Share of the budget that is planned: what is measured in a second is not exact."""
LEAST_STEPS = 10
"""A trial of fewer is not worth its while: batches are halved first, down to the smallest."""
SMALLEST_BATCH = 16
HELD_OUT = 0.1
ENOUGH = {"chooses": 60, "decides": 120}
"""Queries that dev and test should have: of few pairs a larger share is held out for it. Twice as many tell a gain of four
points of nDCG@10 from chance where single queries differ by twenty."""
MOST_HELD_OUT = {"chooses": 0.125, "decides": 0.25}
FEWEST_HELD_OUT = 11
"""Fewer than ten of a split are refused; rounding takes one."""
TELLING = 200
"""Queries that choose: of fewer the choice is chance. Two steps of a run differ by about a point of nDCG@10, single queries
by twenty: the error of a mean over 60 is 2.6 points, over 200 it is 1.4."""


class Plan(Section):
    """What will be done, in numbers."""

    budget: float
    """Seconds."""
    documents: int
    """Chunks, or documents of the pairs."""
    queries: int
    """At most so many are made; 0 where pairs are given."""
    human: int
    """People's queries."""
    rows: int
    """That are expected to train."""
    batch_size: int
    halved: bool
    """Whether batches are smaller than the data would have them, so that there are steps enough."""
    steps: dict[str, int]
    """At most, of each trial, by its name."""
    held_out: float
    """Share of the pairs, or of the queries that are made, that chooses."""
    decides: float | None = None
    """Share that decides; null, of an older plan, is as large a one."""
    dev: tuple[int, int]
    """Queries and documents that validation measures on at most."""
    searched: int | None
    """Documents that the gate searches at most, of each piece of data; null is all."""
    reads: bool
    """Whether the start reads beside BM25 in the round trip."""
    reranks: bool | None = None
    """Whether a reranker judges and teaches; null where none is given."""
    chooses: bool
    """Whether mixtures of start and trained model are measured."""
    validates: bool = True
    """Whether some queries choose; else all that are held out decide."""
    cut: bool
    """Whether the budget allows fewer steps than the data would."""
    guiding: float = 0.0
    """Seconds that the guided trial takes before its steps, for the start's vectors."""
    seconds_per_step: float
    seconds: dict[str, float]
    """Expected of each stage."""

    @property
    def total(self) -> float:
        """Expected seconds of all stages."""
        return sum(self.seconds.values())

    def limit(self, trial: str) -> float:
        """Return the seconds after which a trial ends: as expected, and its share of what the plan leaves free."""
        spare = max(0.0, self.budget - self.total) / len(self.steps)
        before = STARTING + EXPORTING + (self.guiding if trial == "guided" else 0.0)
        return round(self.seconds[trial] - before + spare, 1)


@dataclass(frozen=True)
class Shares:
    """Of the queries, what chooses among models and what decides about the chosen one."""

    chooses: float
    decides: float


@dataclass(frozen=True)
class Draft:
    """What a depth would make of the budget."""

    depth: Depth
    queries: Queries
    costs: Costs
    batch: int
    halved: bool
    step: dict[str, float]
    """Seconds of a step of each trial."""
    steps: dict[str, int]
    wanted: int
    """Steps that the data would take."""

    def suffices(self, budget: float) -> bool:
        """Whether each trial has all steps that its data takes, or half of the time and steps to show something.

        With a reranker or a guide the time must be there for all steps.
        """
        if min(self.steps.values()) >= self.wanted and not self.halved:
            return True
        around = self.costs.around + len(self.steps) * self.costs.trial
        free = SAFE * budget - self.costs.writing
        least = self.wanted if self.depth.reranks or self.depth.guides else LEAST_STEPS
        enough = min(self.steps.values()) >= min(self.wanted, least)
        return enough and around - self.costs.writing <= free / 2

    def takes_nothing_of(self, other: "Draft") -> bool:
        """Whether each trial of another draft trains on as many queries here."""
        return all(
            self.steps[name] * self.batch >= number * other.batch
            for name, number in other.steps.items()
        )


def make_plan(asked: Asked, material: Material, speed: Speed) -> Plan:
    """Fit the work to the budget.

    Args:
        asked: The budget, and what takes of it.
        material: What there is to learn from.
        speed: Of this machine.

    Raises:
        UserError: If not one step fits into it.
    """
    shares = _shares(material.rows)
    draft = _choose(asked, material, speed, shares)
    _refuse_nothing(draft, asked.budget)
    training = {
        name: draft.costs.trial + number * draft.step[name] for name, number in draft.steps.items()
    }
    if "guided" in training:
        training["guided"] += draft.costs.guiding
    return Plan(
        budget=asked.budget,
        documents=material.documents,
        queries=draft.queries.made,
        human=asked.human,
        rows=draft.queries.train,
        held_out=shares.chooses,
        decides=shares.decides,
        dev=draft.depth.dev,
        searched=draft.depth.searched,
        reads=draft.depth.reads,
        reranks=None if asked.pair_seconds is None else draft.depth.reranks,
        chooses=draft.depth.chooses,
        validates=draft.depth.validates,
        batch_size=draft.batch,
        halved=draft.halved,
        steps=draft.steps,
        cut=min(draft.steps.values()) < draft.wanted,
        guiding=round(draft.costs.guiding, 1),
        seconds_per_step=draft.step["plain"],
        seconds=_in_order({**draft.costs.fixed, **training}),
    )


def _choose(asked: Asked, material: Material, speed: Speed, shares: Shares) -> Draft:
    """Return the most thorough draft that suffices; with a reranker and a guide where that takes no query from other trials."""
    for depth in _depths(asked, material, shares):
        draft = _draft(asked, material, speed, depth, shares)
        if draft.suffices(asked.budget):
            break
    for depth in () if asked.pair_seconds is None else RERANKING:
        more = _draft(asked, material, speed, depth, shares)
        if more.suffices(asked.budget) and more.takes_nothing_of(draft):
            draft = more
            break
    more = _draft(asked, material, speed, replace(draft.depth, guides=True), shares)
    enough = draft.depth.mines and more.suffices(asked.budget) and more.takes_nothing_of(draft)
    return more if enough else draft


def _depths(asked: Asked, material: Material, shares: Shares) -> Sequence[Depth]:
    """Return what to try, from thorough to frugal; few queries of the pairs, or few documents, choose nothing: they train."""
    if not material.rows:
        return DEPTHS
    few = shares.chooses * material.rows < TELLING
    if few and not asked.human and not asked.guards and asked.pair_seconds is None:
        return [replace(depth, mines=False, validates=False, chooses=False) for depth in DEPTHS]
    return [depth if depth.chooses else replace(depth, validates=False) for depth in DEPTHS]


def _draft(asked: Asked, material: Material, speed: Speed, depth: Depth, shares: Shares) -> Draft:
    """Divide what is left among the trials; where that is too little for large batches, make them smaller."""
    queries = _queries(material, depth, shares)
    costs = costs_of(asked, material, speed, depth, queries)
    chosen = choose_trainer(_facts(queries.train, material, speed), {})
    wanted, usual = int(chosen["steps"]), int(chosen["batch_size"])
    sizes = trials_of(depth)
    left = (SAFE * asked.budget - costs.around) / len(sizes) - costs.trial
    batch = usual
    while True:
        step = {name: size * speed.step(batch) for name, size in sizes.items()}
        steps = {name: _affordable(left, seconds, wanted) for name, seconds in step.items()}
        if min(steps.values()) >= min(wanted, LEAST_STEPS) or batch // 2 < SMALLEST_BATCH:
            return Draft(depth, queries, costs, batch, batch < usual, step, steps, wanted)
        wanted, batch = 2 * wanted, batch // 2


def _shares(rows: int) -> Shares:
    """Return what is held out of so many pairs; of queries that are made (no pairs) a tenth each."""
    found = {name: max(HELD_OUT, number / max(1, rows)) for name, number in ENOUGH.items()}
    if not rows:
        return Shares(HELD_OUT, HELD_OUT)
    least = FEWEST_HELD_OUT / rows
    bounded = {name: max(least, min(MOST_HELD_OUT[name], one)) for name, one in found.items()}
    return Shares(**{name: round(share, 3) for name, share in bounded.items()})


def _queries(material: Material, depth: Depth, shares: Shares) -> Queries:
    if material.rows:
        held = shares.decides + depth.validates * shares.chooses
        train, test = (1 - held) * material.rows, shares.decides * material.rows
        return Queries(0, round(train), round(test))
    made = min(depth.queries, QUERIES_PER_CHUNK * material.documents)
    kept = KEPT * made
    return Queries(made, max(1, round((1 - 2 * HELD_OUT) * kept)), round(HELD_OUT * kept))


def _refuse_nothing(draft: Draft, budget: float) -> None:
    if draft.steps["plain"] >= 1:
        return
    around = draft.costs.around - draft.costs.writing + draft.costs.trial
    share = SAFE - draft.costs.writing / budget
    least = (around + draft.step["plain"]) / share
    raise UserError(
        "--budget", "does not suffice for one step", got=show_seconds(budget),
        cure=f"Give about {math.ceil(least / 60)}m or more, or fewer documents",
    )  # fmt: skip


def _in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    order = (
        "data", "mined", "judged", "scored", "plain", "guided", "hard", "cleaned", "taught", "choice", "gate",
    )  # fmt: skip
    return {name: round(seconds[name], 1) for name in order if name in seconds}


def _affordable(seconds: float, step: float, wanted: int) -> int:
    return max(0, min(wanted, math.floor(seconds / step)))


def _facts(rows: int, material: Material, speed: Speed) -> Facts:
    return Facts(
        queries=rows,
        rows=max(rows, 16),
        smallest=max(rows, 16),
        parameters=speed.parameters,
        texts_measured=min(DEPTHS[0].dev[1], material.documents),
        synthetic=not material.rows,
    )
