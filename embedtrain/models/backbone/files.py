"""Files of a model folder: weights, projections, JSON. A broken one is the user's mistake, said in one line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.files import read_json, write_json


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a file.

    Raises:
        UserError: If it is no whole safetensors file.
    """
    with readable_weights(path):
        weights: dict[str, Tensor] = load_file(path)
    return weights


@contextmanager
def readable_weights(path: Path) -> Iterator[None]:
    """Turn what safetensors raises for a broken file into one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            path,
            "is no whole safetensors file",
            got=str(error),
            cure="Copy or download it again",
        ) from error


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors into a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().contiguous() for name, value in weights.items()}
    save_file(whole, path, metadata={"format": "pt"})


def read_projection(folder: Path) -> nn.Linear:
    """Read a linear layer in the layout of sentence-transformers' ``Dense``."""
    config = read_json(folder / "config.json")
    activation = config.get("activation_function", "Identity").rsplit(".", 1)[-1]
    if activation != "Identity":
        raise UserError(
            folder, "has an activation after the projection, which is not offered", got=activation
        )
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            folder, "has no model.safetensors", cure="Save the projection as safetensors"
        )
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = read_weights(folder / "model.safetensors")
    layer.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    return layer


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a linear layer with copies of these weights, in their type."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
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
            "activation_function": "torch.nn.modules.linear.Identity",
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
