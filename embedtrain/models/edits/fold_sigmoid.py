"""Let a classifier's own score be log-odds that mean a probability: a slope and an intercept become part of its last layer."""

import torch
from torch import nn

from embedtrain.errors import UserError
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.cross_encoder.head import ClassifierHead

FLAG = "--probabilities"


@torch.no_grad()
def fold_sigmoid(model: CrossEncoderModel, slope: float, intercept: float) -> None:
    """Replace each score s by ``slope * s + intercept``, in place; readers of exports then apply a sigmoid.

    Raises:
        UserError: If the scores are a language model's answers, or the last layer has no bias.
    """
    if not isinstance(model.head, ClassifierHead):
        problem = "cannot be folded into the answers of a language model, which are rows of its vocabulary"
        raise UserError(FLAG, problem, cure="Apply slope and intercept where the score is read")
    last = model.head.last
    layer = last if isinstance(last, nn.Linear) else last.out_proj
    if layer.bias is None:
        cure = "Apply slope and intercept where the score is read"
        raise UserError(FLAG, "needs a head with a bias, which decoders have not", cure=cure)
    layer.weight.mul_(slope)
    layer.bias.mul_(slope).add_(intercept)
    model.contract = model.contract.model_copy(update={"says_probability": True})
