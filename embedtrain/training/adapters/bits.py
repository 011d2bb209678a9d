r"""Learn a rotation under which bits rank texts as floats do, from vectors alone.

$$\mathcal{L} = \frac{1}{B} \sum_i \mathrm{KL}(\pi_i \,\|\, p_i) + \mathrm{KL}(\pi_i \,\|\, h_i), \quad
\pi_{ij} \propto e^{x_i x_j / \tau},\; p_{ij} \propto e^{q_i b_j / 0.80 \tau},\; h_{ij} \propto e^{b_i b_j / 0.64 \tau}$$

over the other texts j of a batch: x are the vectors as they came, q = W x, b the signs of q, of length 1, through which the
gradient passes. Half of each batch's ranking is among near texts: a quarter are drawn, the others from their nearest. After each
step W is brought back to orthonormal rows, so that whole floats keep every inner product.

Source: ours, from iterative quantisation (:func:`embedtrain.models.edits.rotate.binary_axes`), straight-through signs, and
distillation of the floats' own ranking.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from embedtrain.ops.groups import row_divergences
from embedtrain.ops.straight_through import TYPICAL_COSINE, straight_through
from embedtrain.retrieval.dense.exact import search_exact

BATCH, DRAWN_NEAR = 384, 3
"""Texts of a batch, and how many of them are near ones of each other one."""
NEAREST = 16
"""Of which they are drawn."""
LEARNING_RATE, TEMPERATURE = 1e-3, 0.05


def learn_axes(
    vectors: Float[Tensor, "texts dim"], axes: Float64[Tensor, "kept dim"], steps: int
) -> Float64[Tensor, "kept dim"]:
    """Return orthonormal axes whose signs rank the texts more as the vectors do than those of ``axes``.

    Args:
        vectors: Of length 1; of thousands of texts, for a few are learned by heart.
        axes: Where to begin.
        steps: Of the optimizer; 0 changes nothing, 400 are enough.
    """
    if steps == 0:
        return axes
    found, near = vectors.float(), _nearest(vectors)
    weight = torch.nn.Parameter(axes.float().clone())
    optimizer = torch.optim.Adam([weight], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = ranking_loss(found[_drawn(near, generator)], weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # one step of Newton and Schulz, which is enough so near
            weight.copy_(1.5 * weight - 0.5 * (weight @ weight.T) @ weight)
    left, _, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    learned: Tensor = left @ right
    return learned


def ranking_loss(
    vectors: Float[Tensor, "texts dim"], axes: Float[Tensor, "kept dim"]
) -> Float[Tensor, ""]:
    """Return how far the rankings by bits are from those by floats, as the module says."""
    others = ~torch.eye(len(vectors), dtype=torch.bool)
    floats = F.normalize(vectors @ axes.T, dim=1)
    bits = straight_through(floats, "binary") / TYPICAL_COSINE["binary"]
    teacher = vectors @ vectors.T / TEMPERATURE
    both = (row_divergences(one @ bits.T / TEMPERATURE, teacher, others) for one in (floats, bits))
    return torch.stack([found.mean() for found in both]).sum()


def _nearest(vectors: Float[Tensor, "texts dim"]) -> Int64[Tensor, "texts near"]:
    """Return the nearest other texts of each."""
    plain = vectors.float().numpy()
    found = search_exact(plain, plain, min(NEAREST + 1, len(plain))).indices
    return torch.from_numpy(found[:, 1:])


def _drawn(near: Int64[Tensor, "texts near"], generator: torch.Generator) -> Int64[Tensor, " rows"]:
    """Return the rows of a batch, none twice."""
    own = torch.randint(len(near), (BATCH // (DRAWN_NEAR + 1),), generator=generator)
    places = torch.randint(near.shape[1], (len(own), DRAWN_NEAR), generator=generator)
    both = torch.cat([own, near[own].gather(1, places).flatten()])
    return torch.from_numpy(np.unique(both.numpy()))
