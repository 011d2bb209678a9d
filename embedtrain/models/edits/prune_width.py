r"""Choose attention heads and feed-forward columns by how far vectors move without them; every layer loses as many.

A gate z in front of each head or column multiplies what it gives, at all tokens of a text. With y the text's vector of
length 1, the squared distance that y moves when a gate closes is, to first order,

$$d_j = \mathbb{E}_\mathrm{texts} \left\lVert \frac{\partial y}{\partial z_j} \right\rVert^2
= \mathbb{E}_\mathrm{texts} \mathbb{E}_r \Big(\sum_t a_{tj} \cdot \nabla_{a_{tj}} \langle y, r \rangle\Big)^2$$

with a what the head or column gives and r of the standard normal distribution: one backward pass of each text tells of all
heads and columns at once.

Source: ours, after the gates of Michel et al. (2019), https://arxiv.org/abs/1905.10650, who take a task's loss, which is at
its minimum here.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from embedtrain.errors import UserError
from embedtrain.models.backbone.fit import shapes_of
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.exits import layer_stacks

Kind = Literal["heads", "columns"]
COLUMNS = ("intermediate_size", "hidden_dim", "d_ff")
"""How configs call the number of a layer's feed-forward columns."""


@dataclass(frozen=True)
class Narrower:
    """Fewer heads or columns in every layer."""

    kind: Kind
    kept: int
    """In each layer."""
    total: int
    distance: float
    """What vectors lie from those of the model that it was begun with."""
    worst: float
    """The same where the others had been kept: those that move vectors the least."""

    @property
    def line(self) -> str:
        """What is said of it."""
        return (
            f"{self.kind} {self.kept} of {self.total}: distance {self.distance:.3f}; "
            f"the worst choice, {self.worst:.3f}"
        )


@dataclass(frozen=True)
class Part:
    """The heads or the columns of one layer."""

    reads: nn.Linear
    """What mixes them."""
    makes: tuple[tuple[nn.Linear, int], ...]
    """What makes them, and how many numbers of each."""
    size: int
    """Numbers of each that are mixed."""

    def keep(self, kept: Int64[Tensor, " kept"]) -> None:
        """Drop all but these."""
        for layer, size in self.makes:
            every = layer.out_features // (self.total * size)  # two where a gate lies beside
            rows = _spread(kept, size)
            whole = torch.cat([rows + copy * self.total * size for copy in range(every)])
            layer.weight = nn.Parameter(layer.weight.detach()[whole.to(layer.weight.device)])
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias.detach()[whole.to(layer.bias.device)])
            layer.out_features = len(whole)
        columns = _spread(kept, self.size).to(self.reads.weight.device)
        self.reads.weight = nn.Parameter(self.reads.weight.detach()[:, columns])
        self.reads.in_features = len(columns)

    @property
    def total(self) -> int:
        """How many there are."""
        return self.reads.in_features // self.size


def check_width(model: DenseEncoder, kind: Kind, kept: int) -> None:
    """Refuse to drop heads or columns of a model whose config cannot say so, and numbers that are none.

    Raises:
        UserError: With what can be done instead.
    """
    place, (step, total) = f"--{kind}", sizes(model, kind)
    if not 1 <= kept < total or kept % step:
        problem = f"is not between 1 and {total - 1}" if step == 1 else (
            f"is no multiple of {step} below {total}, and so many heads share their keys"
        )  # fmt: skip
        raise UserError(place, problem, got=kept, cure=f"Each layer has {total}")
    config, make = model.backbone.config, type(model.backbone)
    with torch.device("meta"):
        sketch = make(_anew(config))
        for part in _parts(sketch, kind):
            part.keep(torch.arange(kept // step))
        try:
            wanted = make(_anew(_stating(_anew(config), kind, kept)))
        except (ValueError, StrictDataclassError) as error:
            raise _cannot(model, kind, kept) from error
    if shapes_of(wanted.state_dict()) != shapes_of(sketch.state_dict()):
        raise _cannot(model, kind, kept)


def sizes(model: DenseEncoder, kind: Kind) -> tuple[int, int]:
    """Return how many stay or go together, and how many each layer has."""
    config = model.backbone.config
    if kind == "columns":
        return 1, int(getattr(config, _key(config)))
    heads = int(config.num_attention_heads)
    return heads // int(getattr(config, "num_key_value_heads", None) or heads), heads


def importances(
    model: DenseEncoder,
    kind: Kind,
    texts: Sequence[str],
    probes: Float[Tensor, "probes dim"] | None = None,
) -> list[Float64[Tensor, " parts"]]:
    """Return for each layer how far a text's vector moves without each of its heads or columns, squared, on average.

    Heads that share their keys count as one. Texts are encoded one by one.

    Args:
        model: In any mode, which is put back.
        kind: What is asked about.
        texts: Some hundreds.
        probes: Directions r for every text; None draws one for each, always the same.
    """
    parts = _parts(model.backbone, kind)
    found = [torch.zeros(part.total, dtype=torch.float64) for part in parts]
    generator, training = torch.Generator().manual_seed(0), model.training
    model.eval()
    try:
        for text in texts:
            with _read(parts) as given:
                ids = model.tokenization.encode([text], "document")
                vector = F.normalize(model.embed(ids, Execution()), dim=1)[0]
            drawn = torch.randn(1, len(vector), generator=generator) if probes is None else probes
            for place, moved in _moved(parts, given, vector, drawn):
                found[place] += moved / len(texts)
    finally:
        model.train(training)
    return found


def _moved(
    parts: Sequence[Part],
    given: dict[int, Tensor],
    vector: Float[Tensor, " dim"],
    probes: Float[Tensor, "probes dim"],
) -> Iterator[tuple[int, Float64[Tensor, " parts"]]]:
    """Yield the place of each layer, and how far one vector moves along a probe without each of its parts, squared."""
    inputs = [given[place] for place in range(len(parts))]
    for probe in probes.to(vector):
        slopes = torch.autograd.grad((vector * probe).sum(), inputs, retain_graph=True)
        for place, (part, one, slope) in enumerate(zip(parts, inputs, slopes, strict=True)):
            moved = (one * slope).detach().view(-1, part.total, part.size).double()
            yield place, moved.sum((0, 2)).square().cpu()


@contextmanager
def _read(parts: Sequence[Part]) -> Iterator[dict[int, Tensor]]:
    """Yield what gets the heads' or columns' numbers of each layer while the model runs."""
    seen: dict[int, Tensor] = {}
    hooks = [
        part.reads.register_forward_pre_hook(
            lambda _, inputs, at=place: seen.__setitem__(at, inputs[0])
        )
        for place, part in enumerate(parts)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def narrow_layers(
    model: DenseEncoder,
    kind: Kind,
    kept: int,
    texts: Sequence[str],
    distance: Callable[[DenseEncoder], float],
) -> tuple[DenseEncoder, Narrower]:
    """Return a copy of a model whose layers keep those heads or columns that move vectors the most, and what that costs."""
    moved = importances(model, kind, texts)
    best = narrowed(model, kind, kept, moved)
    worst = narrowed(model, kind, kept, [-scores for scores in moved])
    total = sizes(model, kind)[1]
    return best, Narrower(kind, kept, total, distance(best), distance(worst))


def narrowed(
    model: DenseEncoder, kind: Kind, kept: int, moved: Sequence[Float64[Tensor, " parts"]]
) -> DenseEncoder:
    """Return a copy whose layers keep those heads or columns, so many each, that move vectors the most."""
    smaller = copy.deepcopy(model)
    step = sizes(model, kind)[0]
    for part, scores in zip(_parts(smaller.backbone, kind), moved, strict=True):
        part.keep(scores.topk(kept // step).indices.sort().values)
    _stating(smaller.backbone.config, kind, kept)
    return smaller


def _parts(backbone: Any, kind: Kind) -> list[Part]:  # noqa: ANN401 - transformers is untyped
    """Return the heads or the columns of each layer."""
    owner, name = layer_stacks(backbone)[0]
    find = _heads if kind == "heads" else _columns
    return [find(layer, backbone.config) for layer in getattr(owner, name)]


def _heads(layer: nn.Module, config: Any) -> Part:  # noqa: ANN401
    for part in layer.modules():
        own = {name: child for name, child in part.named_children() if isinstance(child, nn.Linear)}
        if {"q_proj", "k_proj", "v_proj", "o_proj"} <= own.keys():
            size = own["o_proj"].in_features // config.num_attention_heads
            shared = own["q_proj"].out_features // own["k_proj"].out_features
            makes = ((own["q_proj"], size * shared), (own["k_proj"], size), (own["v_proj"], size))
            return Part(own["o_proj"], makes, size * shared)
    raise UserError(
        "--heads",
        "needs a config that states head_dim, as Qwen's, Llama's, Gemma's and Mistral's do",
        got=config.model_type,
        cure="Use --columns",
    )


def _columns(layer: nn.Module, config: Any) -> Part:  # noqa: ANN401
    linear = [
        part
        for name, part in layer.named_modules()
        if isinstance(part, nn.Linear) and "att" not in name.lower()
    ]
    number = getattr(config, _key(config))
    *makes, reads = linear or [nn.Linear(1, 1)]
    fits = all(part.out_features in (number, 2 * number) for part in makes)
    if not makes or not fits or reads.in_features != number:
        problem = "needs layers with one feed-forward part of linear maps"
        raise UserError("--columns", problem, got=config.model_type, cure="Use --keep")
    return Part(reads, tuple((part, 1) for part in makes), 1)


def _key(config: Any) -> str:  # noqa: ANN401
    found = [key for key in COLUMNS if isinstance(getattr(config, key, None), int)]
    if not found:
        problem = "needs a config that states one number of columns"
        raise UserError("--columns", problem, got=config.model_type, cure="Use --keep")
    return found[0]


def _stating(config: Any, kind: Kind, kept: int) -> Any:  # noqa: ANN401
    """Let a config state that its layers have so many heads or columns, and return it."""
    if kind == "columns":
        setattr(config, _key(config), kept)
        return config
    heads = config.num_attention_heads
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = heads // (getattr(config, "num_key_value_heads", None) or heads)
    config.num_attention_heads = kept
    if shared > 1 or hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = kept // shared
    return config


def _anew(config: Any) -> Any:  # noqa: ANN401
    """Return a copy of a config as a file would hold it."""
    return type(config).from_dict(config.to_dict())


def _cannot(model: DenseEncoder, kind: Kind, kept: int) -> UserError:
    family = model.backbone.config.model_type
    problem = f"is what the config of a {family} cannot say: transformers would not load it"
    cure = "Choose a number that divides the hidden size" if kind == "heads" else "Use --keep"
    return UserError(f"--{kind}", problem, got=kept, cure=cure)


def _spread(kept: Int64[Tensor, " kept"], size: int) -> Int64[Tensor, " numbers"]:
    """Return the places of all numbers of what is kept, ``size`` each."""
    return (kept[:, None] * size + torch.arange(size)).flatten()
