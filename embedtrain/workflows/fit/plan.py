"""What a budget of wall time suffices for: how many queries, which trials, how many steps of each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from embedtrain.errors import UserError
from embedtrain.section import Section
from embedtrain.training.automatic import Facts, choose_trainer
from embedtrain.units import show_seconds
from embedtrain.workflows.fit.look import Material, Speed

QUERIES_PER_CHUNK = 2
MOST_QUERIES = 20_000
KEPT = 0.4
"""Share of the queries written that pass the filters, before it is known."""
DEV_SIZES = ((500, 2_000), (300, 1_000), (200, 500), (100, 250), (50, 100))
"""Queries and documents that validation measures on at most: often, so they must be few where time is short."""
MEASUREMENTS = 5
"""Validations of a trial."""
CHOICES = 12
"""Mixtures that the last choice measures."""
SAFE = 0.8
"""Share of the budget that is planned: what is measured in a second is not exact."""
LEAST_STEPS = 10
"""A second trial must have so many steps to be worth its while."""
STARTING = 5.0
EXPORTING = 10.0
"""Seconds that a stage takes beside its work: loading a model, and reloading an export in a process of its own."""
SYNTHESIS = 0.01
"""Seconds that rules, filters and BM25 take for a chunk."""
HELD_OUT = 0.1
ENOUGH = 60
"""Queries that dev and test should have: of few pairs a larger share is held out for it."""
MOST_HELD_OUT = 0.25
LLM_SHARE = 0.4
"""Share of the budget that a language model may write for."""
NEGATIVES = 4
"""Mined negatives that a query of the second trial trains with."""


class Plan(Section):
    """What will be done, in numbers."""

    budget: float
    """Seconds."""
    documents: int
    """Chunks, or documents of the pairs."""
    queries: int
    """At most so many are made; 0 where pairs are given."""
    rows: int
    """That are expected to train."""
    batch_size: int
    steps: dict[str, int]
    """Of each trial, by its name."""
    held_out: float
    """Share of the pairs that chooses, and that decides."""
    dev: tuple[int, int]
    """Queries and documents that validation measures on at most."""
    cut: bool
    """Whether the budget allows fewer steps than the data would."""
    seconds_per_step: float
    seconds: dict[str, float]
    """Expected of each stage."""

    @property
    def total(self) -> float:
        """Expected seconds of all stages."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Costs:
    """Seconds of the stages that do not depend on the number of steps."""

    fixed: Mapping[str, float]
    trial: float
    """Of each trial, beside its steps."""


def make_plan(
    budget: float, material: Material, speed: Speed, *, has_llm: bool, guards: int
) -> Plan:
    """Fit the work to the budget.

    Args:
        budget: Seconds.
        material: What there is to learn from.
        speed: Of this machine.
        has_llm: Whether a language model writes the queries.
        guards: Data sets that are measured besides.

    Raises:
        UserError: If not one step fits into it.
    """
    queries = 0
    held_out = round(min(MOST_HELD_OUT, max(HELD_OUT, ENOUGH / max(1, material.rows))), 3)
    rows = round((1 - 2 * held_out) * material.rows)
    if not material.rows:
        queries = min(MOST_QUERIES, QUERIES_PER_CHUNK * material.documents)
        rows = max(1, round(0.8 * KEPT * queries))
    chosen = choose_trainer(_facts(rows, material, speed), {})
    wanted, batch = int(chosen["steps"]), int(chosen["batch_size"])
    for dev in DEV_SIZES:
        costs = _costs(budget, material, speed, dev[1], has_llm=has_llm, guards=guards)
        if sum(costs.fixed.values()) + 2 * costs.trial <= SAFE * budget / 2:
            break
    left = SAFE * budget - sum(costs.fixed.values())
    step = {"plain": speed.step(batch), "hard": speed.step(batch) * (1 + NEGATIVES / 2)}
    both = [_affordable(left / 2 - costs.trial, seconds, wanted) for seconds in step.values()]
    if min(both) >= min(wanted, LEAST_STEPS):
        steps = dict(zip(step, both, strict=True))
    else:
        steps = {
            "plain": _affordable(left + costs.fixed["mined"] - costs.trial, step["plain"], wanted)
        }
        costs = Costs({k: v for k, v in costs.fixed.items() if k != "mined"}, costs.trial)
    if steps["plain"] < 1:
        least = (sum(costs.fixed.values()) + costs.trial + step["plain"]) / SAFE
        raise UserError(
            "--budget", "does not suffice for one step", got=show_seconds(budget),
            cure=f"Give about {math.ceil(least / 60)}m or more, or fewer documents",
        )  # fmt: skip
    training = {name: costs.trial + number * step[name] for name, number in steps.items()}
    return Plan(
        budget=budget,
        documents=material.documents,
        queries=queries,
        rows=rows,
        held_out=held_out,
        dev=dev,
        batch_size=batch,
        steps=steps,
        cut=max(steps.values()) < wanted,
        seconds_per_step=step["plain"],
        seconds=_in_order({**costs.fixed, **training}),
    )


def _in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    order = ("data", "mined", "plain", "hard", "choice", "gate")
    return {name: round(seconds[name], 1) for name in order if name in seconds}


def _affordable(seconds: float, step: float, wanted: int) -> int:
    return max(0, min(wanted, math.floor(seconds / step)))


def _facts(rows: int, material: Material, speed: Speed) -> Facts:
    return Facts(
        queries=rows,
        rows=max(rows, 16),
        smallest=max(rows, 16),
        parameters=speed.parameters,
        texts_measured=min(DEV_SIZES[0][1], material.documents),
        synthetic=not material.rows,
    )


def _costs(
    budget: float,
    material: Material,
    speed: Speed,
    dev_documents: int,
    *,
    has_llm: bool,
    guards: int,
) -> Costs:
    """Work out what does not depend on the steps; each text is encoded once by each model, and then cached."""
    corpus = speed.encoding(material.documents)
    measured = speed.encoding(min(dev_documents, material.documents))
    data = STARTING
    if not material.rows:
        data += SYNTHESIS * material.documents + 2 * corpus
        data += LLM_SHARE * budget if has_llm else 0.0
    fixed = {
        "data": data,
        "mined": STARTING + corpus,
        "choice": STARTING + EXPORTING + CHOICES * measured,
        "gate": STARTING + EXPORTING + (2 + 2 * guards) * corpus,
    }
    return Costs(fixed, STARTING + EXPORTING + MEASUREMENTS * measured)
