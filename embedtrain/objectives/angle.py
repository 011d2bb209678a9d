r"""AnglE: CoSENT of a similarity of complex vectors, which saturates later than the cosine."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from embedtrain.objectives.base import Objective
from embedtrain.ops.scored_pairs import order_loss, scored_pairs
from embedtrain.types import ObjectiveOutput, RetrievalOutputs


class AnglE(Objective):
    r"""Order pairs by what dividing their vectors as complex numbers gives.

    With $x = a + ib$ and $y = c + id$, the halves of the two vectors,
    $$A(x, y) = \left| \cos(x, y) + \frac{\langle b, c\rangle - \langle a, d\rangle}{|x|\,|y|} \right|$$
    takes the place of the similarity in CoSENT. It grows with likeness, $A(x, x) = 1$, and it is not
    symmetric. A vector of odd length is padded with a 0. The method adds it to CoSENT and to InfoNCE over the
    pairs that are alike: see ``recipes/sts/angle.yaml``, whose InfoNCE goes from the first texts to the second only, where the
    authors' code contrasts all texts with all.

    Source: Li and Li (2023), https://arxiv.org/abs/2309.12871.
    """

    name: Literal["angle"] = "angle"
    needs_all_queries: ClassVar[bool] = True  # pairs are compared with those of other ranks
    scale: PositiveFloat = 20.0
    """Times A."""
    symmetric: bool = False
    """Average A(x, y) and A(y, x), which the method does not."""

    def __call__(self, outputs: RetrievalOutputs) -> ObjectiveOutput:  # noqa: D102
        pairs = scored_pairs(outputs)
        query, document = pairs.vectors()
        similarity = angle_similarity(query, document)
        if self.symmetric:
            similarity = (similarity + angle_similarity(document, query)) / 2
        return ObjectiveOutput(order_loss(similarity, pairs.labels, self.scale), {})


def angle_similarity(
    x: Float[Tensor, "pairs dim"], y: Float[Tensor, "pairs dim"]
) -> Float[Tensor, " pairs"]:
    """Return A of each row of x with the same row of y."""
    odd = x.shape[1] % 2
    (a, b), (c, d) = (F.pad(F.normalize(v, dim=1), (0, odd)).chunk(2, dim=1) for v in (x, y))
    return (a * c + b * d + b * c - a * d).sum(1).abs()
