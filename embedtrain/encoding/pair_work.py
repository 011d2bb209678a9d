"""What scores pairs, as a key tells it, and what it took."""

import json
from dataclasses import astuple, dataclass
from typing import Any, Literal, get_args

KindOfPairs = Literal["cross_encoder", "encoder", "yes_no", "likelihood", "graded"]
"""``cross_encoder``: a classifier that reads both texts; ``encoder``: a model of vectors, of either kind. Others are
language models: one judges (``yes_no``), expects the query behind the document (``likelihood``) or grades."""
KindOfLists = Literal["listwise", "pairwise", "answer", "attribution"]
"""Language models whose score of a pair depends on more than the pair: one orders a list, compares each two documents of it,
or writes an answer behind one document (``answer``) or several (``attribution``)."""
KindOfStages = Literal[KindOfPairs, "listwise", "pairwise"]
"""What can order a query's results anew: all but those that need an answer."""
ScorerKind = Literal[KindOfPairs, KindOfLists]
"""What scores a query with a document."""
OF_LISTS = get_args(KindOfLists)
OF_STAGES = get_args(KindOfStages)
UNSEEN = [
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "id2label",
    "label2id",
    "problem_type",
    "sentence_transformers",
]
"""What a transformer's config says that changes no score."""


@dataclass
class PairWork:
    """Counts of what a scorer has computed; it adds to them as it goes."""

    pairs: int = 0
    tokens: int = 0
    """Without padding; 0 where texts are encoded apart."""
    padding: int = 0
    """Places that were computed and held no token."""
    cut_documents: int = 0
    """Pairs whose texts were too long to be read whole."""
    shared_tokens: int = 0
    """Of the tokens, those that were not computed again because another pair begins with them too."""

    def __sub__(self, before: "PairWork") -> "PairWork":
        """Return what was added since."""
        return PairWork(
            *(now - then for now, then in zip(astuple(self), astuple(before), strict=True))
        )


def computing_config(config: Any) -> str:  # noqa: ANN401 - transformers is untyped
    """Return what a transformer's config says, in one order, without names and versions: no weight shows most of it."""
    told = {name: value for name, value in config.to_dict().items() if name not in UNSEEN}
    return json.dumps(told, sort_keys=True, default=str)
