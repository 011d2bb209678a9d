"""What to mine and how: the keys of ``embedtrain mine`` and of a recipe's mining stage."""

import hashlib
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from embedtrain.mining.bm25 import Bm25Search
from embedtrain.mining.dense import DenseSearch
from embedtrain.mining.late_interaction import TokensSearch
from embedtrain.mining.runs import RunSearch
from embedtrain.mining.sparse import WordsSearch
from embedtrain.precision import Precision
from embedtrain.section import Count, Section


class ScoreRule(Section):
    r"""Keep a candidate whose teacher score lies below a threshold that follows the positive's score.

    With $s^+$ the smallest score among the query's positives the threshold is

    - ``percentage``: $s^+ - (1 - \mathrm{ratio}) |s^+|$, which is ratio times the score where that is positive
      and never looser than it where it is negative,
    - ``margin``: $s^+ - \mathrm{margin}$,
    - ``absolute``: maximum,
    - ``adaptive``: $\min(s^+ - \mathrm{margin}, \mathrm{maximum})$: a doubtful positive gets a lower bound, a
      certain one no higher than maximum (LG-ANNA),
    - ``none``: infinity.

    Margins are in units of the teacher's similarity: those of cosine mean nothing for MaxSim or dot products.

    Source: NV-Retriever, Moreira et al. (2024), https://arxiv.org/abs/2407.15831; ``adaptive``:
    LG-ANNA-Embedding (2025), https://arxiv.org/abs/2506.07438.
    """

    kind: Literal["percentage", "margin", "absolute", "adaptive", "none"] = "percentage"
    ratio: float = 0.95
    """For ``percentage``."""
    margin: NonNegativeFloat = 0.05
    """For ``margin`` and ``adaptive``."""
    maximum: float = 0.7
    """For ``absolute`` and ``adaptive``."""
    tolerance: NonNegativeFloat = 1.0e-4
    """Scores so close below the threshold are kept out too: rounding must not decide."""

    def thresholds(
        self, positive: Float64[np.ndarray, " queries"]
    ) -> Float64[np.ndarray, " queries"]:
        """Return the score from which candidates are kept out, given each query's lowest positive."""
        threshold = {
            "percentage": positive - (1 - self.ratio) * np.abs(positive),
            "margin": positive - self.margin,
            "absolute": np.full_like(positive, self.maximum),
            "adaptive": np.minimum(positive - self.margin, self.maximum),
            "none": np.full_like(positive, np.inf),
        }[self.kind]
        bound: Float64[np.ndarray, " queries"] = threshold - self.tolerance
        return bound


class Sampling(Section):
    r"""How negatives are chosen among the candidates that survive, which come in merged order.

    ``top`` takes the first, ``uniform`` draws without replacement, ``simans`` draws without replacement with
    $p \propto \exp(-a (s - s^+ - b)^2)$: most of all those that score a little below (or above) the positive.

    Source: SimANS, Zhou et al. (2022), https://arxiv.org/abs/2210.11773.
    """

    kind: Literal["top", "uniform", "simans"] = "top"
    pool: Count | None = None
    """Draw from so many first survivors only; null draws from all."""
    a: NonNegativeFloat = 20.0
    """For ``simans``: how sharply the preferred score is preferred."""
    b: float = 0.0
    """For ``simans``: the preferred score, relative to the positive's."""

    def choose(
        self,
        scores: Float64[np.ndarray, " survivors"],
        positive: float,
        wanted: int,
        generator: np.random.Generator,
    ) -> Int64[np.ndarray, " chosen"]:
        """Return the places of the chosen survivors, in merged order; all where fewer survive."""
        size = min(len(scores), self.pool or len(scores))
        if self.kind == "top" or wanted >= size:
            return np.arange(min(wanted, size))
        # Gumbel noise on log-probabilities draws without replacement and cannot underflow.
        keys = generator.gumbel(size=size)
        if self.kind == "simans":
            keys = keys - self.a * (scores[:size] - positive - self.b) ** 2
        return np.sort(np.argsort(-keys, kind="stable")[:wanted])


def query_generator(seed: int, epoch: int, query_id: str) -> np.random.Generator:
    """Return the generator of one query: the same on every machine, whichever queries come before it."""
    digest = hashlib.blake2b(f"{seed}|{epoch}|{query_id}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


Search = Annotated[
    DenseSearch | TokensSearch | WordsSearch | Bm25Search | RunSearch, Field(discriminator="kind")
]


class Guide(Section):
    """A second model: candidates that it puts above the positive are kept out.

    Source: GISTEmbed, Solatorio (2024), https://arxiv.org/abs/2402.16829.
    """

    model: str
    """Model folder or Hub id of an encoder."""
    margin: float = 0.0
    """Keep out what scores above the lowest positive minus this, in the guide's similarity."""


class CrossEncoderCheck(Section):
    """A cross-encoder that decides about candidates whose teacher score is near the threshold.

    Source: RocketQA, Qu et al. (2021), https://arxiv.org/abs/2010.08191, for ``maximum``; PAIR, Ren et al. (2021),
    https://arxiv.org/abs/2108.06027, for ``positive``.
    """

    model: str
    """Folder or Hub id of a sequence classifier of query and document."""
    near: PositiveFloat = 0.1
    """Score candidates at most this far from the threshold, on either side of it."""
    maximum: PositiveFloat = Field(default=0.1, lt=1)
    """Keep those to which it gives at most this probability of being relevant."""
    positive: PositiveFloat | None = Field(default=None, lt=1)
    """Ask about every candidate, and make positives of those with at least this probability; what lies between is
    neither. Only probabilities of a model that means them will do, such as one trained by binary cross-entropy."""
    most_positives: Count = 4
    """With ``positive``: so many new ones per query, the most probable."""
    batch_size: Count = 32
    """Pairs scored at once."""

    @model_validator(mode="after")
    def _positive_is_above(self) -> "CrossEncoderCheck":
        if self.positive is not None and self.positive <= self.maximum:
            raise ValueError("positive must be above maximum: no document is both")
        return self


class Guard(Section):
    """Queries that are only for measuring: no training query may repeat one of them."""

    path: str
    """A BEIR folder, or ``python_docs``."""
    split: str = "test"
    exclude_positives: bool = False
    """Also keep out the documents that answer these queries: for small closed corpora."""


class MiningConfig(Section):
    """How hard negatives are found, cleaned and chosen."""

    sources: tuple[Search, ...] | None = Field(default=None, min_length=1)
    """Where candidates come from: ``dense``, ``late_interaction``, ``bm25`` or ``run``, each with a
    ``quota``; null searches exactly with the teacher."""
    depth: Count = 200
    """Candidates per query and source."""
    skip_ranks: NonNegativeInt = 0
    """Leave out so many first ranks of every source: for noisy labels."""
    num_negatives: Count = 7
    """Negatives per query."""
    rule: ScoreRule = ScoreRule()
    """How high a negative may score under the teacher, relative to the positive."""
    near_duplicates: bool = True
    """Keep out documents that nearly repeat a positive (MinHash, Jaccard 0.8)."""
    guide: Guide | None = None
    cross_encoder: CrossEncoderCheck | None = None
    guard: Guard | None = None
    guards: tuple[Guard, ...] = ()
    """More than ``guard``."""
    sampling: Sampling = Sampling()
    shortfall: Literal["keep", "random_fill", "repeat", "drop"] = "keep"
    """Where too few candidates survive: keep fewer, add random documents, repeat, or drop the query."""
    seed: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    """Changes the random choices, nothing else."""
    precision: Precision = "auto"
    """What texts are encoded in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU. Half the
    bits encode faster; scores near a threshold may fall on its other side."""
    num_suspects: NonNegativeInt = 50
    """Queries shown in the sample of suspected false negatives."""
    num_rejected: NonNegativeInt = 0
    """Write so many suspected false negatives per query with their texts to ``rejected.jsonl``, those of the first
    ranks, for ``embedtrain judge``: 20 is what it looks at."""


def settings_of(config: MiningConfig) -> dict[str, object]:
    """Return the settings as a key of what is mined: what adds something is left out while it is off."""
    off = {name for name in ("num_rejected", "guards") if not getattr(config, name)}
    return config.model_dump(mode="json", exclude=off)


def makes_positives(config: MiningConfig) -> bool:
    """Whether a cross-encoder adds positives."""
    return config.cross_encoder is not None and config.cross_encoder.positive is not None
