"""What is made of a corpus: the keys of ``embedtrain synth`` and of a recipe's stage ``synth``."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from embedtrain.mining.judgement.settings import Judge
from embedtrain.precision import Precision
from embedtrain.section import Count, Section
from embedtrain.synthesis.contexts import ContextConfig
from embedtrain.synthesis.language_settings import LanguageConfig

Share = Annotated[float, Field(ge=0, le=1)]
Maker = Literal["title", "heading", "question", "first", "crop", "keyphrases", "link"]
MAKERS: tuple[Maker, ...] = (
    "title",
    "heading",
    "question",
    "first",
    "crop",
    "keyphrases",
    "link",
)


class ChunkConfig(Section):
    """How documents are cut for search."""

    length: Count | None = 256
    """Tokens of the base model that a chunk has at most; null cuts no document."""
    min_characters: NonNegativeInt = 50
    """No query is written for a shorter chunk; it is searched all the same."""
    title: bool = True
    """Whether a chunk is searched, and trained, with its document's title before it."""


class Shares(Section):
    """How many chunks rules without a limit of their own are applied to."""

    first: Share = 0.2
    crop: Share = 0.3
    keyphrases: Share = 0.2


class RoundTrip(Section):
    """Who must find a query's document again, among all."""

    reader: Literal["fused", "bm25", "base"] | None = "fused"
    """``fused`` adds the scores of BM25 and of the base model, each between 0 and 1; null asks nobody."""
    top: Count = 3
    """The document must be among so many first ones."""
    depth: Count = 20
    """Ranks up to here are reported."""


class NearCopy(Section):
    """What is no query but a copy of the text."""

    run: Count = 8
    """Words in a row that a query may share with the text."""
    containment: Share = 0.85
    """Share of its content words that it may have from one sentence, if it also shares ``short_run`` in a row."""
    short_run: Count = 5


class SplitConfig(Section):
    """Which share of the documents is held out; a document and its near copies stay together."""

    dev: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _leaves_some(self) -> "SplitConfig":
        if self.dev + self.test >= 1:
            raise ValueError(
                "dev and test must leave documents to train on: their sum must be below 1"
            )
        return self


class SynthesisConfig(Section):
    """How queries are made for documents that have none, and which of them are believed."""

    base: str | None = None
    """The embedding model to be trained, a folder or Hub id: its tokenizer measures chunks, its vectors look for
    near copies and help in the round trip. Null is the small one that `embedtrain init` would take."""
    chunks: ChunkConfig = ChunkConfig()
    makers: tuple[Maker, ...] | None = Field(default=None, min_length=1)
    """Rules that write queries without a language model: ``title``, ``heading``, ``question`` (lines that end in
    one), ``first`` (sentences), ``crop``, ``keyphrases`` and ``link``. Null applies all, but none beside a language
    model."""
    shares: Shares = Shares()
    per_chunk: Count = 2
    """Queries kept of a chunk; beside a language model rules have as many again."""
    per_document: Count = 8
    """The same of a document: a long manual must not be most of the training data."""
    limit: Count = 20_000
    """Queries kept in all; documents are drawn."""
    near_copy: NearCopy = NearCopy()
    cosine: Share = 0.95
    """Queries whose vectors are this similar are one."""
    round_trip: RoundTrip = RoundTrip()
    log_probability: Share = 0.1
    """Share of a language model's queries, of each type, that is dropped for being its least probable."""
    judge: Judge | None = None
    """A model that reads a query and its text together, and takes what is less likely answered than not."""
    contexts: ContextConfig | None = None
    """Write tasks with answers about sets of texts, in the place of queries of single ones (SCARLet): ``train.jsonl`` and
    ``answers.jsonl``, for ``embedtrain score --as attribution``. A language model writes them; nothing is held out, and
    filters that look for a text again are left out."""
    split: SplitConfig = SplitConfig()
    language: LanguageConfig = LanguageConfig()
    """What a language model is asked, and what it may cost; without one it means nothing."""
    seed: NonNegativeInt = 0
    encoding: str = "utf-8"
    """Of text, Markdown and HTML files."""
    precision: Precision = "auto"
    """What texts are encoded in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU."""

    @model_validator(mode="after")
    def _contexts_stand_alone(self) -> "SynthesisConfig":
        if self.contexts is not None and (self.makers is not None or self.judge is not None):
            raise ValueError(
                "contexts are written by a language model alone: drop makers and judge"
            )
        return self
