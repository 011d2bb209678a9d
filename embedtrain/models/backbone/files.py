"""Files of a model folder: weights, projections, JSON. A broken one is the user's mistake, said in one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fit import WEIGHTS, compare, refuse_not_finite, shapes_of
from embedtrain.models.backbone.folder_files import DenseFile, read_form
from embedtrain.outside import reading

SAVE = "Save the projection as safetensors"
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"
"""What stands behind a projection, as sentence-transformers names it."""


def read_weights(path: Path, *, whole: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return all tensors of a file; those named in ``whole`` hold whole numbers.

    Raises:
        UserError: If it is no whole safetensors file, or holds numbers of another kind, or not finite ones.
    """
    with reading(path):
        weights: dict[str, Tensor] = load_file(path)
    for name, value in weights.items():
        if value.is_floating_point() == (name in whole):
            problem = f"holds {name} as numbers of another kind"
            raise UserError(path, problem, got=str(value.dtype), cure="Save it as it was trained")
    refuse_not_finite(path, weights.items())
    return weights


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors into a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().contiguous() for name, value in weights.items()}
    save_file(whole, path, metadata={"format": "pt"})


class TanhLinear(nn.Linear):
    r"""A linear layer with a tanh behind it: $\tanh(W x + b)$."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what the layer makes of vectors, each number between -1 and 1."""
        return super().forward(input).tanh()


ACTIVATIONS: dict[str, type[nn.Linear]] = {"Identity": nn.Linear, "Tanh": TanhLinear}
"""What may stand behind a projection, by the names of its classes."""


def read_projection(folder: Path) -> nn.Linear:
    """Read a linear layer in the layout of sentence-transformers' ``Dense``.

    Raises:
        UserError: If it has another activation than a tanh, or its files are missing, broken or do not fit together.
    """
    config = read_form(folder / "config.json", DenseFile)
    activation = config.activation_function.rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS:
        problem = "has an activation after the projection that is not offered"
        raise UserError(folder, problem, got=activation, cure=f"Use one of {list(ACTIVATIONS)}")
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        cure = "Save its pickle anew, as docs/train.md shows" if pickled else SAVE
        raise UserError(folder, f"has no {WEIGHTS}", cure=cure)
    weights = {key.removeprefix("linear."): value for key, value in read_weights(path).items()}
    wanted = {"weight": (config.out_features, config.in_features), "bias": (config.out_features,)}
    compare(path, wanted if config.bias else {"weight": wanted["weight"]}, shapes_of(weights))
    bias = weights["bias"].float() if config.bias else None
    return linear_layer(weights["weight"].float(), bias, ACTIVATIONS[activation])


def as_one(first: nn.Linear, second: nn.Linear, place: object) -> nn.Linear:
    """Return the one linear layer that two, one behind the other, amount to: no activation stands between them.

    The product is taken in float64. Vectors are those of both but for rounding; to train the product is another
    matter than to train both.

    Raises:
        UserError: If the second does not take what the first gives, or a tanh stands behind either; ``place`` names both.
    """
    for one in (first, second):
        refuse_tanh(one, place)
    if second.in_features != first.out_features:
        problem = f"names a projection to {first.out_features} numbers before one of others"
        raise UserError(place, problem, got=second.in_features, cure="Take both from one place")
    weight = second.weight.double() @ first.weight.double()
    if first.bias is None and second.bias is None:
        return linear_layer(weight.float())
    zero = torch.zeros((), dtype=torch.float64)
    bias = (zero if second.bias is None else second.bias.double()) + (
        zero if first.bias is None else second.weight.double() @ first.bias.double()
    )
    return linear_layer(weight.float(), bias.float())


def refuse_tanh(projection: nn.Linear | None, place: object) -> None:
    """Refuse a tanh behind a projection, where both should become one matrix with another.

    Raises:
        UserError: That names ``place``.
    """
    if isinstance(projection, TanhLinear):
        problem = "has a tanh behind its projection, which is no part of a matrix"
        raise UserError(place, problem, cure="Use a model without")


def linear_layer(
    weight: Tensor, bias: Tensor | None = None, kind: type[nn.Linear] = nn.Linear
) -> nn.Linear:
    """Return a linear layer with copies of these weights, in their type."""
    layer = kind(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def write_projection(folder: Path, projection: nn.Linear, **settings: object) -> None:
    """Write a linear layer in the layout of sentence-transformers' ``Dense``, with further settings."""
    write_json(
        folder / "config.json",
        {
            "in_features": projection.in_features,
            "out_features": projection.out_features,
            "bias": projection.bias is not None,
            "activation_function": TANH if isinstance(projection, TanhLinear) else IDENTITY,
            **settings,
        },
    )
    weights = {f"linear.{key}": value for key, value in projection.state_dict().items()}
    write_weights(folder / "model.safetensors", weights)


def write_modules(folder: Path, types: Mapping[str, str]) -> None:
    """Write ``modules.json``: the type of each module by its folder, in the order in which they run."""
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(types.items())
    ]
    write_json(folder / "modules.json", modules)
