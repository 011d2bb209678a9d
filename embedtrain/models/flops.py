r"""Count the floating-point operations of a backbone's passes, exactly and without running it.

Counted are matrix products: $(m, k) \times (k, n)$ takes $2 m k n$. Norms, activations, rotations and look-ups are
left out, as in all figures of this name. A linear layer of $P$ weights takes $2 P$ for each token forward; backward
as much again for its weight's gradient and for its input's, where they are wanted: a frozen layer needs one of
them, and the first layers below all that is trained need none. Attention takes $4 h c$ for each pair of tokens that
see each other ($h$ heads of dimension $c$).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Int64
from torch import Tensor, nn

from embedtrain.models.exits import layer_stacks

ENCODERS = (
    "bert", "camembert", "distilbert", "modernbert", "mpnet", "roberta", "xlm-roberta",
)  # fmt: skip
DECODERS = ("gemma", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Families whose count is tested against the operations that torch sees; of others nothing is said."""
QUERY, KEY, VALUE = (
    frozenset(names.split())
    for names in (
        "query q q_proj q_lin Wqkv",
        "key k k_proj k_lin Wqkv",
        "value v v_proj v_lin Wqkv",
    )
)
WIDENING = ("gate_proj", "up_proj", "Wi", "lin1", "intermediate.dense")
"""Ends of the names of linear layers that a feed-forward block's input meets first."""
ADAPTER_PARTS = (".base_layer", ".lora_A.default", ".lora_B.default")


@dataclass(frozen=True)
class Passes:
    """Operations of a forward and of a backward pass."""

    forward: int = 0
    backward: int = 0
    recalled: int = 0
    """The part of ``forward`` whose results :mod:`embedtrain.models.recall` keeps."""

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.forward + other.forward,
            self.backward + other.backward,
            self.recalled + other.recalled,
        )

    def times(self, number: int) -> "Passes":
        """Return the operations of so many such passes."""
        return Passes(self.forward * number, self.backward * number, self.recalled * number)

    @property
    def total(self) -> int:
        """Both passes, each once."""
        return self.forward + self.backward


class Sight(NamedTuple):
    """How many tokens a token sees before and behind itself; None for all."""

    before: int | None = None
    behind: int | None = None

    def pairs(self, lengths: Int64[Tensor, " texts"]) -> int:
        """Return how many pairs of tokens see each other, all texts together."""
        return int(lengths.sum()) + sum(_reach(lengths, limit) for limit in self)


def _reach(lengths: Tensor, limit: int | None) -> int:
    r"""Return $\sum_t \min(t, w)$ over the tokens $t = 0, 1, \dots$ of all texts."""
    most = lengths - 1 if limit is None else (lengths - 1).clamp_max(limit)
    return int((most * (most + 1) // 2 + (lengths - 1 - most) * most).sum())


@dataclass(frozen=True)
class BackboneWork:
    """What a token, and a pair of tokens that see each other, takes in all layers together."""

    per_token: Passes
    per_pair: tuple[tuple[Sight, Passes], ...]

    def count(self, lengths: Int64[Tensor, " texts"], *, dense: bool = False) -> Passes:
        """Return the operations on texts of these lengths (on the CPU, each 1 or more).

        ``dense`` computes the scores of all pairs and hides some afterwards, as attention with a mask does.
        """
        total = self.per_token.times(int(lengths.sum()))
        for sight, passes in self.per_pair:
            total += passes.times((Sight() if dense else sight).pairs(lengths))
        return total


def count_linear(layer: nn.Linear, rows: int = 1, *, reached: bool = True) -> Passes:
    """Return the operations of a linear layer on so many rows; ``reached``: its input wants a gradient."""
    size = 2 * rows * layer.in_features * layer.out_features
    wanted = int(layer.weight.requires_grad) + int(reached)
    keeps = type(layer) is nn.Linear and layer.out_features < layer.in_features
    return Passes(size, size * wanted, size if keeps else 0)


def count_backbone(backbone: Any) -> BackboneWork | None:  # noqa: ANN401 - transformers is untyped
    """Return the operations of a backbone; None for families and parts that no test compares.

    Which weights are trained counts, so adapters must be in place.
    """
    config, stacks = getattr(backbone, "config", None), []
    if config is not None and config.model_type in ENCODERS + DECODERS:
        stacks = layer_stacks(backbone)
    if len(stacks) != 1 or any(len(part) for part in _magnitudes(backbone)):
        return None
    layers = getattr(*stacks[0])
    own = {id(parameter) for parameter in layers.parameters()}
    reached = any(one.requires_grad for one in backbone.parameters() if id(one) not in own)
    per_token, pairs = Passes(), Counter[tuple[Sight, Passes]]()
    for number, layer in enumerate(layers):
        linear, attention = _count_layer(layer, config, reached=reached)
        per_token += linear
        pairs[_sight(config, number), attention] += 1
        reached = reached or any(one.requires_grad for one in layer.parameters())
    found = tuple((sight, passes.times(number)) for (sight, passes), number in pairs.items())
    return BackboneWork(per_token, found)


def _magnitudes(backbone: nn.Module) -> Iterable[Any]:
    """Yield what DoRA learns beside adapters: it multiplies weights by each other, which nothing here counts."""
    return (
        part.lora_magnitude_vector
        for part in backbone.modules()
        if hasattr(part, "lora_magnitude_vector")
    )


def _count_layer(layer: nn.Module, config: Any, *, reached: bool) -> tuple[Passes, Passes]:  # noqa: ANN401
    """Return what a layer takes for a token, and for a pair of tokens; ``reached``: its input wants a gradient."""
    linear = [(name, one) for name, one in layer.named_modules() if isinstance(one, nn.Linear)]
    total = Passes()
    for name, one in linear:
        before = (other for label, other in linear if _stage(label) < _stage(name))
        wanted = reached or ".lora_B." in name or _is_trained(before)
        total += count_linear(one, reached=wanted)
    query, key, value = (
        reached or _is_trained(one for name, one in linear if _owner(name) in names)
        for names in (QUERY, KEY, VALUE)
    )
    heads = config.num_attention_heads
    size = 2 * heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    # Of the values, of the scores, of the queries, of the keys.
    gradients = value + (query or key) + query + key
    return total, Passes(2 * size, gradients * size)


def _is_trained(layers: Iterable[nn.Linear]) -> bool:
    return any(one.requires_grad for layer in layers for one in layer.parameters(recurse=False))


def _owner(name: str) -> str:
    """Return the last part of a linear layer's name; the parts of an adapted one share its name."""
    for part in ADAPTER_PARTS:
        name = name.removesuffix(part)
    return name.rpartition(".")[2]


def _stage(name: str) -> int:
    """Return when a linear layer runs: those of a stage read what the stages before have made."""
    for part in ADAPTER_PARTS:
        name = name.removesuffix(part)
    if "att" in name.partition(".")[0]:
        return 0 if _owner(name) in QUERY | KEY | VALUE else 1
    return 2 if name.endswith(WIDENING) else 3


def _sight(config: Any, number: int) -> Sight:  # noqa: ANN401 - transformers is untyped
    """Return what the tokens of a layer see of their text."""
    family = config.model_type
    causal = family in DECODERS and getattr(config, "is_causal", True) is not False
    both = getattr(config, "use_bidirectional_attention", False) or not causal
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds and kinds[number] != "sliding_attention":
        window = None
    if family == "modernbert":
        return Sight(window, window)
    behind = 0 if not both else None if window is None else window - 1
    return Sight(None if window is None else window - 1, behind)
