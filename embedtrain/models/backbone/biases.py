"""BitFit: of a backbone only the biases are trained, a thousandth of its numbers; what is put behind it is trained whole.

Source: Ben Zaken et al. (2021), https://arxiv.org/abs/2106.10199.
"""

from torch import nn

from embedtrain.errors import UserError


def is_bias(name: str) -> bool:
    """Whether a weight of this name is a bias."""
    return name.rpartition(".")[2].endswith("bias")


def train_biases_only(backbone: nn.Module, family: str) -> None:
    """Freeze all parameters of a backbone but its biases, those of norms among them.

    Raises:
        UserError: If it has none; ``family`` is what transformers calls it.
    """
    found = False
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(is_bias(name))
        found = found or is_bias(name)
    if not found:
        raise UserError(
            "model.train",
            "is to train biases, of which this backbone has none",
            got=family,
            cure="Use model.lora, or another family: BERT and RoBERTa have them in every layer",
        )
