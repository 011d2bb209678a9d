"""Two models side by side: their unit vectors concatenated."""

from collections.abc import Sequence

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.situated import SituatedConfig


def concatenate(models: Sequence[str], shares: Sequence[float]) -> DenseEncoder:
    r"""Return a model whose cosine is the mean of two models' cosines, weighed by their shares.

    $$v = \frac{[\sqrt{w_1}\, u_1 ; \sqrt{w_2}\, u_2]}{\sqrt{w_1 + w_2}}$$

    Each reads texts with its own tokenizer, prompts and lengths. A situated model
    (:mod:`embedtrain.models.dense.situated`) is the same, with a part that trains.

    Args:
        models: Two folders or Hub ids of models with one vector per text, compared by cosine.
        shares: Of both, positive.

    Raises:
        UserError: If they are not two, or one is of another kind.
    """
    if len(models) != 2:
        raise UserError("MODELS", "must be two to stand side by side", got=list(models))
    if len(shares) != 2 or min(shares) <= 0:
        problem, cure = "must be positive, one for each of two models", "Say --weight 1 --weight 2"
        raise UserError("--weight", problem, got=list(shares), cure=cure)
    first, second = models
    beside = SituatedConfig(base=second, weight=shares[1] / shares[0])
    both = build_dense(DenseConfig(backbone=first, situated=beside)).eval()
    # What the first one's vectors were trained to be stored as says nothing of these.
    both.contract = both.contract.model_copy(update={"outputs": None})
    return both
