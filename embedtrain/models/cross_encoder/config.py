"""The section ``model:`` of a recipe, for models that read a query and a document together."""

from typing import Literal

from pydantic import Field, model_validator

from embedtrain.contract.pair_contract import PairScoring
from embedtrain.contract.texts import Instruction
from embedtrain.models.backbone.loading import BackboneConfig
from embedtrain.section import Count


class CrossEncoderConfig(BackboneConfig):
    """A reranker. Null takes what the backbone's folder says, then the defaults."""

    kind: Literal["cross_encoder"]
    backbone: str
    """Hub id, local folder (transformers or sentence-transformers), or ``package:NAME/FOLDER``; a backbone without a
    head for classes gets a new one."""
    scorer: PairScoring | None = None
    """``classifier``: a head with one output. ``yes_no``: a language model's log-odds of two answers: a causal one's,
    trained by ``lora``, or the first word of a T5's, mT5's or UMT5's (monoT5), trained whole or by ``lora``. Null: as the
    folder says, else a classifier."""
    query_length: Count | None = None
    """Tokens of a query; its end is cut. Null: as the folder says, else 64, and 512 for ``yes_no``."""
    length: Count | None = None
    """Tokens of a pair, with all that stands around both texts; the document's end is cut. Null: as the folder says,
    else 512, and 2,048 for ``yes_no``."""
    template: str | None = None
    """What stands around both texts, such as ``"query: {query} document: {document}</s>"``; null: as the folder says,
    else what the tokenizer puts there."""
    yes_word: str | None = None
    """The answer that stands for a relevant document, one token (``yes_no``; monoT5's is "true"); null: as the folder
    says, else "yes"."""
    no_word: str | None = None
    """The other answer; empty for none, which scores by the logit of ``yes_word`` alone. Null: as the folder says, else "no"."""
    classes: tuple[str, ...] = ()
    """Names of the classes of pairs to tell apart, in the order of their numbers, for the objective
    pair_classification; empty scores relevance."""
    exits: tuple[Count, ...] = ()
    """Layers, counted from 1, whose states the head scores as well, for the objective multi_exit; the last is always
    trained and not named. ``embedtrain export --layer`` ends the model at one of them."""
    instructions: dict[str, Instruction] = Field(default={})
    """Tasks by name, put before queries, for ``data.sources``; those of the folder are kept. ``template: tart`` is what
    TART-full reads."""
    trust_remote_code: bool = False
    """Run modelling code from the model's repository. Only for repositories you trust."""

    @model_validator(mode="after")
    def _instructions_are_of_queries(self) -> "CrossEncoderConfig":
        if any(one.both_sides for one in self.instructions.values()):
            raise ValueError("a pair holds its instruction once, before the query: drop both_sides")
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> "CrossEncoderConfig":
        if self.scorer == "classifier" and (self.yes_word is not None or self.no_word is not None):
            raise ValueError("yes_word and no_word are answers: set scorer: yes_no")
        if list(self.exits) != sorted(set(self.exits)):
            raise ValueError("exits must ascend")
        if self.exits and self.classes:
            raise ValueError("exits score relevance: drop exits or classes")
        if self.classes and (self.scorer == "yes_no" or len(set(self.classes)) < 2):
            raise ValueError("classes are two names or more, of a classifier")
        return self
