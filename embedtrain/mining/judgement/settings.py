"""Who judges mined rows, what is asked, and what follows: the keys of ``embedtrain judge``."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.mining.settings import Guard
from embedtrain.precision import Precision
from embedtrain.section import Count, Section


class Judge(Section):
    """A model that gives a query and a document log-odds of being relevant."""

    model: str
    """A cross-encoder, or a language model: a folder, a Hub id, a .gguf file or an OpenAI-compatible address."""
    kind: ScorerKind | None = None
    """``cross_encoder`` or ``yes_no``; null: as its config says. A language model's must be said."""
    batch_size: Count = 32
    """Pairs that a cross-encoder scores at once."""
    precision: Precision = "auto"
    language: LanguageSettings = LanguageSettings()
    """How a language model is asked; ``instruction`` is the definition of relevance. ``endpoint.price`` for ``money``."""


class JudgeConfig(Section):
    """Which pairs are judged, and what follows from the probability p that a document is relevant.

    Of a candidate: from ``relabel`` on it becomes a positive; above ``negative`` it is neither positive nor negative
    and masked in the batch; else it is a negative, again if mining had kept it out.
    """

    judge: Judge
    larger: Judge | None = None
    """A better judge, whose word counts where it is asked: about candidates to which the first gives at least
    ``uncertain[0]``, and positives to which it gives at most ``uncertain[1]``."""
    uncertain: tuple[float, float] = (0.2, 0.95)
    relabel: float = Field(default=0.9, gt=0, le=1)
    negative: float = Field(default=0.3, ge=0, lt=1)
    drop_positive: float = Field(default=0.1, ge=0, lt=1)
    """A positive that no person judged is dropped below this; a row without another one with it."""
    depth: Count = 20
    """Judge candidates that mining kept out of so many first ranks."""
    close: PositiveFloat = 0.85
    """Judge kept negatives that score above this share of the query's lowest positive."""
    words: Count = 300
    """Of a document, ended at a sentence, that the judge reads at most."""
    written: bool = False
    """The positives come from a writer of queries and not from people: all are judged, and may be dropped."""
    positives: NonNegativeFloat = Field(default=0.1, le=1)
    """Share of the positives that are judged where people gave them (at least 100): to see how good the judge is."""
    most_positives: Count = 5
    """New positives per query, the most probable."""
    most_regained: NonNegativeInt = 2
    """Negatives per query that mining had kept out; they take the place of the last ones."""
    hub_ratio: PositiveFloat = 0.02
    """A document that would become a positive of a larger share of the queries, and of more than ``hub_queries``,
    becomes one of none: it is boilerplate, or the judge likes it."""
    hub_queries: Count = 5
    guard: Guard | None = None
    """Queries that are only for measuring: what answers them becomes no positive. Null takes that of the mining."""
    labels: str | None = None
    """Judgments of people, who are never contradicted, and by whom the judge is measured: a BEIR folder, or a .tsv
    file of query id, document id and grade with the ids of the mined rows."""
    labels_split: str = "train"
    grades: bool = False
    """Grade: 2 answers the query, 1 lies between, 0 does not. What lies between then stands among the negatives, ``scores``
    are the grades, for `rank_net` with ``weights: ndcg_loss2pp`` (LambdaLoss), and ``qrels/judged.tsv`` holds them for evaluation."""
    num_labels: Count = 400
    """Pairs that people judged, which the judge is asked about."""
    num_random: NonNegativeInt = 200
    """Queries with a random document, of which at most 1 % may come out relevant: the threshold is raised until then."""
    tokens: NonNegativeInt | None = None
    """Ask no more when so many tokens were read; the most doubtful pairs come first then."""
    money: NonNegativeFloat | None = None
    """Ask no more when so much was paid at addresses with a ``price``; the most doubtful pairs come first then."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _are_in_order(self) -> "JudgeConfig":
        if self.negative >= self.relabel:
            raise ValueError("negative must be below relabel: no document is both")
        if not 0 <= self.uncertain[0] <= self.uncertain[1] <= 1:
            raise ValueError("uncertain is two probabilities, the lower one first")
        judges = [one for one in (self.judge, self.larger) if one is not None]
        if self.money is not None and all(one.language.endpoint.price is None for one in judges):
            raise ValueError(
                "money needs the price of a million tokens: judge.language.endpoint.price"
            )
        return self
