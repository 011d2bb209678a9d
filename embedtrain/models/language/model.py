"""A causal language model: states of tokens, and what their logits would be.

A judgement needs the rows of its answers only: the logits of a whole vocabulary are computed in tiles, or of the last
tokens, where one is to be written.
"""

import struct
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from embedtrain.errors import UserError, missing_extra
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.fit import refuse_not_finite
from embedtrain.models.backbone.loading import max_length, preferred_device
from embedtrain.models.backbone.pretrained import (
    CURE,
    FOREIGN,
    loading,
    quiet_transformers,
    read_config,
    read_model,
    read_tokenizer,
    refuse_other_vocabulary,
)
from embedtrain.ops.products import multiply, tile_bytes
from embedtrain.outside import reading
from embedtrain.precision import Chosen, Precision, choose, computing

GGUF = ".gguf"
TILE_BYTES = 2**25
"""Logits held at once on a CPU."""
PROBE = "The answer is"
SAME = 1e-3
"""Most that a logit may differ, relative to the largest, from that of the model's own head."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def name_of(path: str) -> str:
    """Return what a model is called wherever it lies: its folder's or file's name, or its Hub id."""
    return Path(path).name if Path(path).exists() else path


class LanguageModel:
    """The weights of a causal language model, its tokenizer, and the rows of its output matrix.

    Args:
        path: A folder, a Hub id, or a file of llama.cpp (``.gguf``), whose numbers are widened.
        precision: Of the weights; what comes out of the last layer is multiplied in float32.

    Raises:
        UserError: If it is no causal language model, or its head does more than a matrix and a soft cap.
    """

    def __init__(self, path: str, *, precision: Precision = "auto") -> None:
        self.path = path
        self.device = preferred_device("auto")
        self.precision: Chosen = choose(precision, self.device.type)
        self.tokenizer, model = _read(path, TYPES[self.precision])
        self.model: Any = model.requires_grad_(False).to(self.device).eval()
        self.head: Any = self.model.get_output_embeddings()
        self.cap: float | None = getattr(self.model.config, "final_logit_softcapping", None)
        self._refuse_other_head()

    @property
    def max_length(self) -> int:
        """Tokens the positions allow."""
        return max_length(self.model.config)

    @torch.no_grad()
    def states(
        self,
        ids: Int64[Tensor, "texts tokens"],
        cache: Any = None,  # noqa: ANN401 - of transformers, which is untyped
        mask: Bool[Tensor, "texts all_tokens"] | None = None,
    ) -> Float[Tensor, "texts tokens dim"]:
        """Return the last layer's states; a cache stands for what comes before, and grows by these tokens.

        A causal token sees nothing behind it: texts are padded on the right and need no mask. Where padding stands
        before tokens, as it does where texts are gone on with, ``mask`` is False there; it is of the cache's tokens as
        well.
        """
        base = self.model.base_model
        given = {} if cache is None else {cache_name(base): cache}
        if mask is not None:
            places = (mask.long().cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            given["attention_mask"] = mask.long().to(self.device)
            if "position_ids" in signature(base.forward).parameters:
                given["position_ids"] = places.to(self.device)
        with computing(self.precision, self.device.type):
            found: Tensor = base(
                input_ids=ids.to(self.device), use_cache=cache is not None, **given
            ).last_hidden_state
        return found

    @torch.no_grad()
    def logits(
        self, states: Float[Tensor, "tokens dim"], entries: Sequence[int]
    ) -> Float[Tensor, "tokens entries"]:
        """Return the logits of some entries of the vocabulary, multiplied in float32."""
        wide = _wide(states)
        found = states.to(wide) @ self.head.weight[list(entries)].to(wide).T
        if self.head.bias is not None:
            found += self.head.bias[list(entries)].to(wide)
        return self._capped(found)

    @torch.no_grad()
    def log_odds(
        self, states: Float[Tensor, "tokens dim"], entry: int, other: int
    ) -> Float[Tensor, " tokens"]:
        """Return how much likelier one entry of the vocabulary is than another, as log-odds.

        The rows are subtracted before they are multiplied: two logits of size 20 leave few digits to a
        difference of 0.1.
        """
        if self.cap is not None:
            both = self.logits(states, [entry, other])
            return both[:, 0] - both[:, 1]
        wide = _wide(states)
        row = self.head.weight[entry].to(wide) - self.head.weight[other].to(wide)
        found: Tensor = states.to(wide) @ row
        if self.head.bias is not None:
            found += self.head.bias[entry].to(wide) - self.head.bias[other].to(wide)
        return found

    @torch.no_grad()
    def log_probabilities(
        self, states: Float[Tensor, "tokens dim"], labels: Int64[Tensor, " tokens"]
    ) -> Float[Tensor, " tokens"]:
        """Return the log-probability of each label behind its state."""
        weight = self.head.weight
        size = max(1, tile_bytes(states.device, TILE_BYTES) // (4 * len(weight)))
        found = states.new_empty(len(states), dtype=_wide(states))
        for begin in range(0, len(states), size):
            block = slice(begin, begin + size)
            logits = self.of_vocabulary(states[block])
            own = logits.gather(1, labels[block].to(states.device)[:, None])[:, 0]
            found[block] = own - logits.logsumexp(1)
        return found

    def likeliest(self, state: Float[Tensor, " dim"]) -> Float[Tensor, " vocabulary"]:
        """Return the log-probability of each entry of the vocabulary behind a state."""
        return self.of_vocabulary(state[None])[0].log_softmax(-1)

    @torch.no_grad()
    def of_vocabulary(self, states: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens all"]:
        """Return the logit of each entry of the vocabulary behind each state."""
        logits = multiply(states, self.head.weight.T, _wide(states))
        if self.head.bias is not None:
            logits += self.head.bias
        return self._capped(logits)

    def _capped(self, logits: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    @torch.no_grad()
    def _refuse_other_head(self) -> None:
        """Compare with the model's own logits: some families scale or add what no name here betrays."""
        ids = torch.tensor([self.tokenizer(PROBE)["input_ids"] or [0]], device=self.device)
        with loading(self.path), computing(self.precision, self.device.type):
            expected = self.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        found = self.of_vocabulary(self.states(ids)[0, -1:])[0]
        allowed = SAME if self.precision == "fp32" else 2**-6
        if not (found - expected).abs().max() <= allowed * expected.abs().max().clamp_min(1):
            raise UserError(
                self.path, "has a head that is more than a matrix",
                got=self.model.config.model_type, cure="Score with a model of another family",
            )  # fmt: skip


def _wide(states: Float[Tensor, "*any"]) -> torch.dtype:
    """Return what states are multiplied and added up in: float32, or float64 for those of it."""
    return torch.promote_types(states.dtype, torch.float32)


def cache_name(model: Any) -> str:  # noqa: ANN401 - transformers is untyped
    """Return what a model calls the keys and values of earlier tokens; transformers 5.24 renamed them."""
    known = signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def is_language_model(architectures: Sequence[str] | None) -> bool:
    """Whether a ``config.json`` names a causal language model."""
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures or ())


def _read(path: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    if path.endswith(GGUF):
        return _read_gguf(Path(path).expanduser(), dtype)
    folder = fetch(path)
    config = read_config(folder)
    if not is_language_model(config.architectures):
        raise UserError(
            path, "is no causal language model", got=config.architectures,
            cure="Give a model whose config.json names a ...ForCausalLM",
        )  # fmt: skip
    tokenizer = read_tokenizer(folder)
    model = read_model(folder, config, AutoModelForCausalLM, dtype=dtype)
    refuse_other_vocabulary(folder, tokenizer, model)
    return tokenizer, model


def _read_gguf(file: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Read a file of llama.cpp; transformers widens its numbers."""
    from importlib.util import find_spec

    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not file.is_file():
        raise UserError(file, "does not exist", cure="Check the path")
    if find_spec("gguf") is None:
        raise missing_extra("gguf", "gguf", "to read a .gguf file")
    with quiet_transformers(), reading(file, cure=CURE, also=(*FOREIGN, struct.error)):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
    refuse_not_finite(file, model.state_dict().items())
    return tokenizer, model
