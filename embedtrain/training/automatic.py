"""The table behind ``trainer: auto``: how to train by the number of rows and by the model, and what was measured.

To change a default, change :data:`RULES`, :data:`KINDS` or :data:`SIZES`; everything else is arithmetic.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from embedtrain.errors import UserError
from embedtrain.ops.infonce.problem import Direction

FEWEST_ROWS = 16
"""Fewer cannot fill four batches of four."""
FEW_ROWS = 200
"""Below so many a map on frozen vectors is the safer way."""
ROWS_PER_BATCH = 4
"""A batch is at most this part of the rows: each row then meets others in every epoch."""
MOST_EPOCHS = 4.0
"""More passes learn the rows by heart: of 57 rows seen 13 times, Cranfield's nDCG@10 lost 1.4 points."""
WARMUP_STEPS = 5
MEASUREMENTS = (4, 20)
"""How often a run validates, besides its start: at least and at most."""
VALIDATION_SHARE = 0.25
"""Of the texts that training encodes, a backward pass counted as two; validation may encode as many."""
PATIENT = 10
"""Measurements from which on a run may stop early, after half of them without a gain."""
TEMPERATURE = 0.05
BOTH_DIRECTIONS: tuple[Direction, ...] = ("query_to_document", "document_to_query")

Kind = Literal["dense", "static", "late_interaction", "sparse", "cross_encoder"]


@dataclass(frozen=True)
class Rule:
    """What suits training sets of fewer than ``below`` queries."""

    below: int | float
    epochs: int | float
    batch_size: int
    learning_rate: float
    """Of a dense model below 50 million parameters."""


RULES = (
    # No arm gained. TrecQA, 78 queries in 348 rows, 16 steps of 32: nDCG@10 -.006 at 2e-5, -.019 at 1e-4.
    Rule(below=FEW_ROWS, epochs=1.5, batch_size=32, learning_rate=2e-5),
    # 919 rows each, MiniLM, 256 tokens, both directions, one seed, nDCG@10 of SciFact, MedQuAD and Debian: .779, .839 and .911
    # so; 1e-4 in batches of 32 .780 and .806 on the first two; one pass at 1e-4 .744, .832 and .902. A mined negative
    # added nothing at twice the seconds.
    Rule(below=2_000, epochs=2, batch_size=16, learning_rate=5e-5),
    # The quick start: 4,000 pairs, 36 steps of 64 at 1e-4.
    Rule(below=20_000, epochs=2, batch_size=64, learning_rate=1e-4),
    # Not measured: as published for large sets, one or two passes and larger batches.
    Rule(below=100_000, epochs=1, batch_size=128, learning_rate=1e-4),
    Rule(below=math.inf, epochs=1, batch_size=256, learning_rate=1e-4),
)
KINDS: dict[Kind, float] = {
    "dense": 1.0,
    "static": 100.0,  # a table of words: each step moves few of its rows
    "late_interaction": 0.5,
    "sparse": 0.2,  # the recipes of sparse/ take 2e-5
    "cross_encoder": 0.2,  # and so do those of rerank/
}
"""What the learning rate of a rule is multiplied by for a kind of model."""
SIZES = ((50e6, 1.0), (300e6, 0.5), (1e9, 0.25), (math.inf, 0.1))
"""And for a model of at most so many parameters; not measured above 50 million."""
SYNTHETIC_RULES = (
    Rule(below=FEW_ROWS, epochs=1, batch_size=32, learning_rate=1e-5),
    # 768 titles and first sentences, 24 steps: .003 to .038 on four collections of five, -.002 on the fifth.
    Rule(below=2_000, epochs=1, batch_size=32, learning_rate=5e-5),
    # Not measured.
    Rule(below=20_000, epochs=1, batch_size=64, learning_rate=5e-5),
    Rule(below=100_000, epochs=1, batch_size=128, learning_rate=5e-5),
    Rule(below=math.inf, epochs=1, batch_size=256, learning_rate=5e-5),
)
"""What suits queries that a program wrote."""
ADAPTERS = 4.0
"""And for adapters: they start at zero, beside frozen weights."""


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Attributes:
        queries: Distinct queries to train on.
        rows: Rows to train on.
        smallest: Rows of the smallest source: a batch holds rows of one source only.
        parameters: Of the whole model.
        kind: Of the model.
        adapters: Whether only adapters are trained.
        texts_measured: Texts that one validation encodes; 0 where nothing is validated.
        texts_per_row: Texts of a row that a step encodes.
        synthetic: Whether a program wrote the queries.
    """

    queries: int
    rows: int
    smallest: int
    parameters: int | float
    kind: Kind = "dense"
    adapters: bool = False
    texts_measured: int = 0
    texts_per_row: int = 2
    synthetic: bool = False


def choose_trainer(facts: Facts, given: dict[str, Any], unit: int = 1) -> dict[str, Any]:
    """Return keys of ``trainer:`` for these facts; those ``given`` stand as they are.

    Args:
        facts: Of the data and the model.
        given: Keys of ``trainer:`` that the recipe says.
        unit: What the batch must be a multiple of, such as devices times micro-batches.

    Raises:
        UserError: If there are too few rows to learn from.
    """
    if facts.rows < FEWEST_ROWS:
        cure = "Give more rows, or write trainer.steps and trainer.batch_size yourself"
        raise UserError("trainer: auto", f"needs {FEWEST_ROWS} rows", got=facts.rows, cure=cure)
    rules = SYNTHETIC_RULES if facts.synthetic else RULES
    rule = next(rule for rule in rules if facts.queries < rule.below)
    size = next(factor for most, factor in SIZES if facts.parameters <= most)
    rate = rule.learning_rate * KINDS[facts.kind] * size
    rate *= ADAPTERS if facts.adapters else 1
    most = min(rule.batch_size, facts.rows // ROWS_PER_BATCH, facts.smallest)
    fits = 2 ** int(math.log2(max(2, most)))
    chosen: dict[str, Any] = {
        "learning_rate": float(f"{rate:.3g}"),
        "batch_size": max(unit, fits // unit * unit),
    }
    if not given.keys() & {"steps", "epochs"}:
        batch = given.get("batch_size", chosen["batch_size"])
        wanted = max(1, round(min(rule.epochs, MOST_EPOCHS) * facts.rows / batch))
        chosen["steps"] = min(wanted, given.get("max_steps") or wanted)
    chosen |= given
    steps = chosen.get("steps") or max(
        1, round(chosen["epochs"] * facts.rows / chosen["batch_size"])
    )
    if "warmup_ratio" not in given:
        chosen["warmup_ratio"] = round(min(0.5, max(0.1, WARMUP_STEPS / steps)), 3)
    if facts.texts_measured and "patience" not in given:
        times = count_measurements(facts, steps, chosen["batch_size"])
        chosen["patience"] = times // 2 if times >= PATIENT else None
    return chosen


def count_measurements(facts: Facts, steps: int, batch_size: int) -> int:
    """Return how often to validate, so that it takes about a fifth of the time."""
    trained = 3 * steps * batch_size * facts.texts_per_row
    least, most = MEASUREMENTS
    wanted = int(VALIDATION_SHARE * trained / max(1, facts.texts_measured))
    return min(steps, max(least, min(most, wanted)))
