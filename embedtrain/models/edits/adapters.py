"""Small transforms of vectors that some other model gave: trained without that model, applied without torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.files import write_json
from embedtrain.models.backbone.fit import compare
from embedtrain.models.backbone.folder_files import VectorAdapterFile, read_form
from embedtrain.outside import reading
from embedtrain.types import Side

AdapterKind = Literal["low_rank", "linear", "mlp"]
Activation = Literal["identity", "tanh", "relu"]
FORMULAS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
}
ARRAYS, DESCRIPTION = "adapter.safetensors", "adapter.json"


class VectorAdapter(nn.Module):
    r"""A transform of vectors that begins as the identity.

    - ``low_rank`` and ``mlp``: $e' = e + U\, g(V e + b) + c$, with $U = 0$ at first. ``low_rank`` has few rows in V
      and no b and c, and with $g(x) = x$ it is one matrix. ``mlp`` is wider and has a g.
    - ``linear``: $e' = W e$, with $W = I$ at first.

    Source: low-rank residuals after ADDER; the form of g and the rank are ours.
    """

    def __init__(self, dim: int, kind: AdapterKind, rank: int, activation: Activation) -> None:
        super().__init__()
        self.kind: AdapterKind = kind
        self.activation: Activation = "identity" if kind == "linear" else activation
        self.dim = dim
        self.square: nn.Parameter | None = None
        self.down: nn.Linear | None = None
        self.up: nn.Linear | None = None
        if kind == "linear":
            self.square = nn.Parameter(torch.eye(dim))
            return
        self.down = nn.Linear(dim, rank, bias=kind == "mlp")
        self.up = nn.Linear(rank, dim, bias=kind == "mlp")
        nn.init.zeros_(self.up.weight)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)

    def forward(self, vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts dim"]:
        """Return the transformed vectors, not normalised."""
        if self.square is not None:
            return vectors @ self.square.T
        return vectors + self.residual(vectors)

    def residual(self, vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts dim"]:
        """Return what is added to the vectors."""
        if self.square is not None:
            return vectors @ (self.square.T - torch.eye(self.dim))
        assert self.down is not None
        assert self.up is not None
        inner = self.down(vectors)
        if self.activation != "identity":
            inner = getattr(torch, self.activation)(inner)
        return self.up(inner)  # type: ignore[no-any-return]

    @property
    def matrix(self) -> Float[Tensor, "dim dim"] | None:
        """The one matrix that does the same; None where there is none."""
        if self.square is not None:
            return self.square.detach()
        if self.kind != "low_rank" or self.activation != "identity":
            return None
        assert self.down is not None
        assert self.up is not None
        return torch.eye(self.dim) + (self.up.weight @ self.down.weight).detach()


def save_adapters(
    folder: Path, adapters: dict[Side, VectorAdapter], figures: dict[str, Any]
) -> None:
    """Write the adapters of one or both sides as plain arrays with a description of their formula."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{side}.{name}": value.detach().numpy()
        for side, adapter in adapters.items()
        for name, value in adapter.state_dict().items()
    }
    save_file(arrays, folder / ARRAYS)
    first = next(iter(adapters.values()))
    description = {
        "formula": "normalise(e + up(g(down(e)))), or normalise(square e)",
        "kind": first.kind,
        "activation": first.activation,
        "dim": first.dim,
        "sides": list(adapters),
        **figures,
    }
    write_json(folder / DESCRIPTION, description)


def apply_adapter(
    folder: Path, vectors: NDArray[np.float32], side: Side
) -> Float32[np.ndarray, "texts dim"]:
    """Transform and normalise vectors with a saved adapter, in NumPy alone.

    A side that has no adapter is normalised and returned.

    Raises:
        UserError: If the folder holds no adapter, or one for vectors of another dimension.
    """
    if not (folder / ARRAYS).is_file():
        raise UserError(folder, "holds no adapter", cure="Give the --output of `embedtrain adapt`")
    description = read_form(folder / DESCRIPTION, VectorAdapterFile)
    if vectors.shape[1] != description.dim:
        raise UserError(
            folder,
            f"adapts vectors of {description.dim} dimensions",
            got=vectors.shape[1],
            cure="Use vectors of the same model",
        )
    weights = _weights_of(folder / ARRAYS, side, description)
    changed = np.asarray(vectors, dtype=np.float32)
    if "square" in weights:
        changed = changed @ weights["square"].T
    elif weights:
        inner = changed @ weights["down.weight"].T + weights.get("down.bias", np.float32(0))
        added = FORMULAS[description.activation](inner) @ weights["up.weight"].T
        changed = changed + added + weights.get("up.bias", np.float32(0))
    lengths = np.linalg.norm(changed, axis=1, keepdims=True)
    return np.asarray(changed / np.maximum(lengths, 1e-12), dtype=np.float32)


def _weights_of(
    path: Path, side: Side, stated: VectorAdapterFile
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of one side's adapter; none where the side has none.

    Raises:
        UserError: If they are not those of such an adapter, or not finite.
    """
    from safetensors.numpy import load_file

    with reading(path):
        arrays = load_file(path)
    weights = {
        name.removeprefix(f"{side}."): value
        for name, value in arrays.items()
        if name.startswith(f"{side}.")
    }
    if not weights:
        return {}
    dim, found = stated.dim, {name: value.shape for name, value in weights.items()}
    rank = next(iter(found.get("down.weight", ())), 0)
    wanted: dict[str, tuple[int, ...]] = {"square": (dim, dim)}
    if stated.kind != "linear":
        wanted = {"down.weight": (rank, dim), "up.weight": (dim, rank)}
    if stated.kind == "mlp":
        wanted |= {"down.bias": (rank,), "up.bias": (dim,)}
    compare(path, wanted, found, exact=True)
    for name, value in weights.items():
        if not np.isfinite(value).all():
            raise UserError(path, f"holds numbers that are not finite in {side}.{name}")
    return weights
