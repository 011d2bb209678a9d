r"""Which tokens of a document keep a vector, learned: a score of each, of which the best so many stay (Nugget).

$$z_j = w_2^\top \tanh(W_1 h_j + b) + b_2, \qquad
s(q, d) = \sum_i \max_{j \in \mathrm{top}_k(z)} \left(\langle q_i, d_j \rangle + \log \sigma(z_j)\right)$$

with the states $h$ of a lower layer. Which tokens are best has no gradient; the term behind the inner product, which
training alone adds, has one, so that tokens that answer queries rise. It is a coordinate of the vectors, against 1 in
the query's: objectives need not know of it. While training, Gumbel noise on the scores tries other tokens.

Source: Qin and Van Durme (2023), https://arxiv.org/abs/2310.01732, whose decoder adds the scores to its attention; that
late interaction does so with the logarithm of the sigmoid is ours.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.late_contract import TokenScorerConfig
from embedtrain.models.pooling import positions, widen
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts, upload

MULTIPLE = 16
"""To a multiple of it the vectors are filled up, for kernels that take no other."""


class TokenScorer(nn.Module):
    """The network that scores tokens, and the choice by its scores.

    Args:
        width: Dimension of the states.
        config: How many tokens stay.
    """

    def __init__(self, width: int, config: TokenScorerConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1)

    def choose(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> tuple[Int64[Tensor, " kept"], Texts, Float[Tensor, " kept"]]:
        """Return which tokens stay, on the device, those tokens, and the scores of them.

        Args:
            states: Of the tokens that may stay.
            texts: These tokens by text, on the CPU.
        """
        scores = widen(self.outer(torch.tanh(self.inner(states)))).squeeze(1)
        noisy = scores.detach()
        if self.training and self.config.noise:
            uniform = torch.rand_like(noisy).clamp(1e-9, 1 - 1e-7)
            noisy = noisy - self.config.noise * (-uniform.log()).log()
        counts = numbers_kept(texts.lengths, self.config.keep_ratio)
        chosen = best_of_each(noisy, texts.lengths, counts)
        kept = Texts(
            upload(texts.ids, states.device)[chosen], upload(counts, states.device), counts
        )
        return chosen, kept, scores[chosen]


def numbers_kept(lengths: Int64[Tensor, " texts"], ratio: float) -> Int64[Tensor, " texts"]:
    """Return how many of the tokens of each text stay: the share, rounded up."""
    return torch.ceil(lengths * ratio - 1e-6).long().clamp(min=1).minimum(lengths)


def best_of_each(
    scores: Float[Tensor, " tokens"],
    lengths: Int64[Tensor, " texts"],
    counts: Int64[Tensor, " texts"],
) -> Int64[Tensor, " kept"]:
    """Return the tokens with the highest scores of each text, in the order of the tokens; of equal ones the first.

    ``lengths`` and ``counts`` are on the CPU, so that nobody waits for the device.
    """
    owner = text_of_token(lengths)
    order = torch.argsort(scores, descending=True, stable=True)
    by_text = order[torch.argsort(upload(owner, scores.device)[order], stable=True)]
    first = (positions(lengths) < counts[owner]).nonzero()[:, 0]
    best: Tensor = by_text[upload(first, scores.device)].sort().values
    return best


def with_scores(
    vectors: Float[Tensor, "tokens dim"], scores: Float[Tensor, " tokens"] | None
) -> Float[Tensor, "tokens more"]:
    """Return vectors with the logarithm of the sigmoid of their scores behind them, or with 1, those of queries."""
    own = vectors.new_ones(len(vectors)) if scores is None else F.logsigmoid(scores)
    room = MULTIPLE - vectors.shape[1] % MULTIPLE
    return torch.cat([vectors, F.pad(own.to(vectors.dtype)[:, None], (0, room - 1))], 1)
