"""What to mine and how: the keys of ``embedtrain mine`` and of a recipe's mining stage."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from embedtrain.mining.bm25 import Bm25Search
from embedtrain.mining.dense import DenseSearch
from embedtrain.mining.late_interaction import TokensSearch
from embedtrain.mining.rules import ScoreRule
from embedtrain.mining.runs import RunSearch
from embedtrain.mining.sampling import Sampling
from embedtrain.section import Section

Search = Annotated[DenseSearch | TokensSearch | Bm25Search | RunSearch, Field(discriminator="kind")]


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

    Source: RocketQA, Qu et al. (2021), https://arxiv.org/abs/2010.08191, for ``maximum``.
    """

    model: str
    """Folder or Hub id of a sequence classifier of query and document."""
    near: PositiveFloat = 0.1
    """Score candidates at most this far from the threshold, on either side of it."""
    maximum: PositiveFloat = Field(default=0.1, lt=1)
    """Keep those to which it gives at most this probability of being relevant."""
    batch_size: PositiveInt = 32
    """Pairs scored at once."""


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
    depth: PositiveInt = 200
    """Candidates per query and source."""
    skip_ranks: NonNegativeInt = 0
    """Leave out so many first ranks of every source: for noisy labels."""
    num_negatives: PositiveInt = 7
    """Negatives per query."""
    rule: ScoreRule = ScoreRule()
    """How high a negative may score under the teacher, relative to the positive."""
    near_duplicates: bool = True
    """Keep out documents that nearly repeat a positive (MinHash, Jaccard 0.8)."""
    guide: Guide | None = None
    cross_encoder: CrossEncoderCheck | None = None
    guard: Guard | None = None
    sampling: Sampling = Sampling()
    shortfall: Literal["keep", "random_fill", "repeat", "drop"] = "keep"
    """Where too few candidates survive: keep fewer, add random documents, repeat, or drop the query."""
    seed: NonNegativeInt = 0
    epoch: NonNegativeInt = 0
    """Changes the random choices, nothing else."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 encodes faster; scores near a threshold may fall on its other side."""
    num_suspects: NonNegativeInt = 50
    """Queries shown in the sample of suspected false negatives."""
