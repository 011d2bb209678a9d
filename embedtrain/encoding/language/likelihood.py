r"""A language model says how likely the query is behind the document: query likelihood.

$$s(q, d) = \frac{1}{|q|} \sum_t \log p(q_t \mid \text{prompt}(d), q_{<t})$$

Source: Sachan et al. (2022), UPR, https://arxiv.org/abs/2204.07496.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from embedtrain.encoding.language.prompts import FLAG, PLACES, open_prompt
from embedtrain.encoding.language.reader import PromptScorer, Reader
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel


class Likelihood(PromptScorer):
    """Scores pairs by the log-probability of the query's tokens, without an end of text.

    Args:
        model: What reads the document and expects the query.
        settings: How it is asked; the template ends with ``{query}``.
        share: Compute what pairs begin with once.

    Raises:
        UserError: If something stands behind the query.
    """

    def __init__(
        self, model: LanguageModel, settings: LanguageSettings, *, share: bool = True
    ) -> None:
        self.model = model
        self.normalize = settings.normalize
        prompt = open_prompt(
            model.tokenizer, settings.template, settings.instruction, default="passage",
            length=min(settings.length, model.max_length), query_length=settings.query_length,
        )  # fmt: skip
        if not prompt.text.endswith(PLACES[0]):
            raise UserError(
                FLAG, "must end with {query} for a likelihood, which is the query's",
                got=prompt.text[-60:], cure="Write what stands behind it before it",
            )  # fmt: skip
        self.reader = Reader(model, prompt, share=share)

    def key(self) -> str:
        """Return a hash of all that a score depends on."""
        return self.reader.key("likelihood", self.normalize)

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        return {
            "kind": "likelihood", "precision": self.precision, "template": self.reader.prompt.text,
            "normalize": self.normalize, "scale": "nats",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-probabilities in nats."""
        if not pairs:
            return np.empty(0)
        found = self._of(pairs)
        if self.normalize == "pmi":
            queries = list(dict.fromkeys(query for query, _ in pairs))
            alone = self._of([(query, "") for query in queries]).tolist()
            row_of = dict(zip(queries, alone, strict=True))
            found = found - found.new_tensor([row_of[query] for query, _ in pairs])
        scores: Float64[np.ndarray, " pairs"] = found.numpy()
        return scores

    def _of(self, pairs: Sequence[tuple[str, str]]) -> Float64[Tensor, " pairs"]:
        texts, heads = self.reader.pairs(pairs)
        sizes = texts.lengths - heads
        if (empty := (sizes < 1).nonzero()).numel():
            raise UserError(
                "a query", "has no token, so it has no likelihood", got=pairs[int(empty[0])][0],
                cure="Remove its row",
            )  # fmt: skip
        return self.reader.continuations(texts, heads, sizes, mean=self.normalize == "tokens")
