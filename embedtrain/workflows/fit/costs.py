"""What the stages around the steps cost, in seconds, before any of them runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from embedtrain.workflows.fit.depth import Depth
from embedtrain.workflows.fit.look import Material, Speed
from embedtrain.workflows.rivals import AMONG

MEASUREMENTS = 5
"""Validations of a trial."""
CHOICES = 8
"""What the last choice measures: the start, the mean, and mixtures; and of each trial the best and the last weights."""
STARTING = 5.0
EXPORTING = 10.0
"""Seconds that a stage takes beside its work: loading a model, and reloading an export in a process of its own."""
SYNTHESIS = 0.01
"""Seconds that rules, filters and BM25 take for a chunk."""
CUTTING = 0.003
"""Seconds that it takes to cut a chunk from its document and to compare it with the texts of the pairs."""
INDEXING = 2e-4
"""Seconds that BM25 takes for a document, where a part of all is searched: in each trial, the choice, and the gate."""
LLM_SHARE = 0.4
"""Share of the budget that a language model may write for."""
NEGATIVES = 4
"""Mined negatives that a query of all trials but the first trains with."""
JUDGED = 10
"""Pairs of a query that a reranker judges, about: what mining kept out, close negatives, the positive."""


@dataclass(frozen=True)
class Asked:
    """What of the wish takes time."""

    budget: float
    """Seconds."""
    has_llm: bool = False
    human: int = 0
    """People's queries: where they decide, the made ones are measured besides, and where they are few the other way."""
    guards: tuple[int, ...] = ()
    """Documents of each guard."""
    pair_seconds: float | None = None
    """That a reranker takes for a pair; None without one."""


@dataclass(frozen=True)
class Queries:
    """How many are made, train, and decide."""

    made: int
    train: int
    test: int


@dataclass(frozen=True)
class Costs:
    """Seconds of the stages that do not depend on the number of steps."""

    fixed: Mapping[str, float]
    trial: float
    """Of each trial, beside its steps."""
    writing: float
    """Of ``fixed`` what a language model takes."""
    guiding: float = 0.0
    """Of the guided trial, beside what each takes: the start encodes what trains."""

    @property
    def around(self) -> float:
        """All but what each trial takes."""
        return sum(self.fixed.values()) + self.guiding


def trials_of(depth: Depth) -> dict[str, float]:
    """Return the trials, and how many times the plain one's a step of each takes."""
    mined = 1 + NEGATIVES / 2
    return {
        "plain": 1.0,
        **({"guided": 1.0} if depth.guides else {}),
        **({"hard": mined} if depth.mines else {}),
        **({"cleaned": mined, "taught": mined} if depth.reranks else {}),
    }


def costs_of(
    asked: Asked,
    material: Material,
    speed: Speed,
    depth: Depth,
    queries: Queries,
) -> Costs:
    """Work out what does not depend on the steps.

    The start encodes the texts of the round trip, which have no titles if rules write; those that are searched, with
    titles, once for mining and gate, since vectors are cached by the list of texts; and the gate's list of its own
    where it searches fewer. The trained model encodes the gate's.
    """
    corpus = speed.encoding(material.documents)
    measured = depth.validates * speed.encoding(min(depth.dev[1], material.documents))

    def searched(documents: int) -> int:
        return (
            documents
            if depth.searched is None
            else min(documents, max(depth.searched, queries.test))
        )

    data, writing, reads = STARTING, 0.0, depth.reads and not material.rows
    if not material.rows:
        writing = LLM_SHARE * asked.budget if asked.has_llm else 0.0
        data += (
            SYNTHESIS * material.documents + reads * corpus + speed.asking(queries.made) + writing
        )
    elif material.reading is not None:
        data += CUTTING * material.documents
    shared = reads and asked.has_llm
    whole = searched(material.documents) == material.documents
    known = whole and (depth.mines or shared)
    lists = 1 if whole or not asked.human else 2
    gated = lists * (1 if known else 2) * speed.encoding(searched(material.documents))
    guarded = speed.encoding(sum(map(searched, asked.guards)))
    indexed = INDEXING * min(AMONG, material.documents)
    fixed = {"data": data, "gate": STARTING + EXPORTING + gated + 2 * guarded}
    fixed["gate"] += 0.0 if whole else indexed
    if depth.chooses:
        choices = CHOICES + 2 * len(trials_of(depth))
        fixed["choice"] = STARTING + EXPORTING + indexed + choices * (measured + guarded)
    if depth.mines:
        fixed["mined"] = STARTING + speed.asking(queries.train) + (0.0 if shared else corpus)
    if depth.reranks:
        assert asked.pair_seconds is not None
        for stage, pairs in (("judged", JUDGED), ("scored", 1 + NEGATIVES)):
            fixed[stage] = STARTING + pairs * queries.train * asked.pair_seconds
    guiding = speed.encoding(queries.train) + speed.asking(queries.train)
    return Costs(
        fixed,
        STARTING + EXPORTING + depth.validates * indexed + MEASUREMENTS * measured,
        writing,
        guiding if depth.guides else 0.0,
    )
