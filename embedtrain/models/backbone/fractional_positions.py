r"""Tables of positions that are asked between their rows, as mixtures or as rows of their own that are trained.

With $f$ positions where the table $T$ of $W$ rows had one, position $k + r/f$ is row $fk + r$ of a longer table. Those
at $r = 0$ are the table's own and stay as they are, so that texts of up to $W$ tokens keep their vectors bit for bit;
the others are parameters of their own, whatever optimizer trains them.

Source: Zhu et al. (2024), LongEmbed, https://arxiv.org/abs/2404.12096.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.fit import read_header, weight_files
from embedtrain.outside import reading

BETWEEN = "between"
"""How the names of trained rows end."""


class FractionalPositions(nn.Embedding):
    r"""A table of positions that can be asked between its rows: $(1 - f)\,T_k + f\,T_{k+1}$ at $k + f$.

    At whole numbers it gives its rows exactly; beyond the last row it gives the last.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return a row, or a mixture of two, for each position."""
        if not input.is_floating_point():
            return super().forward(input)
        low = input.floor().long()
        high = (low + 1).clamp_max(self.num_embeddings - 1)
        rows, next_rows = super().forward(low), super().forward(high)
        return torch.lerp(rows, next_rows, (input - low).to(rows.dtype)[..., None])


class TunedPositions(FractionalPositions):
    """A table whose rows between its own are trained; its own are frozen.

    Args:
        table: The own rows.
        between: The others, shape [rows, factor - 1, dim].
    """

    def __init__(self, table: nn.Embedding, between: Tensor) -> None:
        super().__init__(
            table.num_embeddings, table.embedding_dim, padding_idx=table.padding_idx, device="meta"
        )
        self.weight = nn.Parameter(table.weight.detach(), requires_grad=False)
        self.between = nn.Parameter(between.detach())

    @classmethod
    @torch.no_grad()
    def of(cls, table: nn.Embedding, factor: int) -> "TunedPositions":
        """Return a table whose rows between its own begin as mixtures; behind the last they are copies of it."""
        asked = FractionalPositions(
            table.num_embeddings, table.embedding_dim, _weight=table.weight.detach()
        )
        parts = torch.arange(1, factor, device=table.weight.device) / factor
        rows = torch.arange(table.num_embeddings, device=table.weight.device)
        return cls(table, asked(rows[:, None] + parts))

    @property
    def factor(self) -> int:
        """Positions where the table had one."""
        return self.between.shape[1] + 1

    def forward(self, input: Tensor) -> Tensor:
        """Return a row of either kind for each position."""
        if not input.is_floating_point():
            return super().forward(input)
        low = input.floor().long()
        part = ((input - low) * self.factor).round().long()
        own: Tensor = super().forward(low)
        flat = self.between.flatten(0, 1)
        others = flat[low * (self.factor - 1) + (part - 1).clamp_min(0)]
        return torch.where((part > 0)[..., None], others.to(own.dtype), own)


def is_between(name: str) -> bool:
    """Whether a weight is one of trained rows."""
    return name.endswith(f".{BETWEEN}")


def restore_between(model: Any, folder: Path) -> None:  # noqa: ANN401 - transformers is untyped
    """Give a backbone the trained rows between positions that its folder holds, if it holds some.

    Raises:
        UserError: If they do not fit its table.
    """
    for path in weight_files(folder):
        for name in filter(is_between, read_header(path)):
            table_name = name.removesuffix(f".{BETWEEN}")
            owner = model.get_submodule(table_name.rpartition(".")[0])
            table = model.get_submodule(table_name)
            with reading(path), safe_open(path, framework="pt") as file:
                between = file.get_tensor(name)
            if between.dim() != 3 or between[:, 0].shape != table.weight.shape:
                raise UserError(path, f"holds {name} of another table", got=list(between.shape))
            tuned = TunedPositions(table, between.to(table.weight.dtype))
            setattr(owner, table_name.rpartition(".")[2], tuned)
