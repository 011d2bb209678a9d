r"""A linear map that gives token vectors back from their signs, while a model trains; exports leave it out.

$$\ell_d = \frac{1}{|d|} \sum_{t \in d} \lVert R\, b_t - \mathrm{sg}(h_t) \rVert^2, \quad
\mathrm{mean}_i\, \mathrm{mean}_{d \in D_i}\, \ell_d$$

h are a document's token vectors, b their signs of length 1, through which the gradient passes. Signs that say more of their
vectors lose less. Each document weighs alike, not each token, so that the mean of ranks' means is the mean over all.

Source: the name and the aim are those of BTR, Cao et al. (2024), https://arxiv.org/abs/2310.01329; its training code is not
published, and this form is ours.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.ops.similarity import text_of_token
from embedtrain.ops.straight_through import TYPICAL_COSINE
from embedtrain.types import TokenEmbeddings


class BitRecovery(nn.Module):
    """The map R, at first the multiple of the identity that suits Gaussian coordinates."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(TYPICAL_COSINE["binary"] * torch.eye(dim))

    def forward(
        self, documents: TokenEmbeddings
    ) -> tuple[TokenEmbeddings, Float[Tensor, " documents"]]:
        """Return documents of signs alone, and what is missed of each, of documents with vectors behind their signs."""
        signs, vectors = documents.tokens.chunk(2, dim=1)
        missed = (signs @ self.weight.T - vectors.detach()).square().sum(1)
        text = text_of_token(documents.lengths, len(signs))
        total = missed.new_zeros(len(documents)).index_add(0, text, missed)
        return replace(documents, tokens=signs), total / documents.lengths
