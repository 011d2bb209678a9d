"""The one door to transformers' ``from_pretrained``: no code of a repository, no pickle, no random weights."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from embedtrain.errors import UserError
from embedtrain.files import read_json
from embedtrain.models.backbone.families import encoder_of
from embedtrain.models.backbone.fit import (
    Stored,
    compare,
    judge,
    read_headers,
    refuse_not_finite,
    shapes_of,
)
from embedtrain.models.backbone.folder_files import BackboneFile, read_form
from embedtrain.outside import reading

CURE = "Check that the folder is complete and from one place"
FOREIGN = (RuntimeError, AssertionError, ImportError)
"""What transformers raises for a foreign folder beside what readers of files raise."""
MOST_LAYERS = 1000
"""Layers that are built without asking how many tensors there are."""
ADAPTER = "adapter_config.json"
PROBE = "a \N{SNOWMAN}"
"""A text that most vocabularies know in part only."""
HEADS = ("cls.", "lm_head.", "head.", "decoder.", "vocab_", "classifier.", "linear.")
"""How the tensors of heads begin, ColBERT's projection included: a backbone without one needs none of them."""


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence loading bars and the report of unused heads; errors still come through."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()


@contextmanager
def loading(place: object) -> Iterator[None]:
    """Turn all that a model folder can make transformers and torch raise into one line."""
    with quiet_transformers(), reading(place, cure=CURE, also=FOREIGN):
        yield


def read_config(folder: Path, *, trust_remote_code: bool = False) -> Any:  # noqa: ANN401 - untyped
    """Read the config of a transformer.

    Raises:
        UserError: If it is not usable, or the folder holds an adapter of another model.
    """
    path = folder / "config.json"
    read_form(path, BackboneFile)
    if (folder / ADAPTER).exists():
        # transformers would put it into the model, or load the base that it names, from wherever that is.
        base = read_json(folder / ADAPTER)
        raise UserError(
            folder,
            f"holds an adapter beside its model ({ADAPTER})",
            got=base.get("base_model_name_or_path") if isinstance(base, dict) else base,
            cure="Merge it into the model, or name the model and the adapter (model.lora.start) apart",
        )
    with loading(path):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def read_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:  # noqa: ANN401 - untyped
    """Read the tokenizer of a folder.

    Raises:
        UserError: If it is not usable.
    """
    with loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        # Half of a surrogate pair cannot be written again: better known before training than after it.
        json.dumps(tokenizer.init_kwargs, ensure_ascii=False, default=str).encode()
        return tokenizer


def read_model(
    folder: Path,
    config: Any,  # noqa: ANN401 - transformers is untyped
    loader: Any,  # noqa: ANN401
    *,
    optional: Callable[[str], bool] = lambda name: False,  # noqa: ARG005
    expected: Callable[[str], bool] = lambda name: False,  # noqa: ARG005
    trust_remote_code: bool = False,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Load a transformer with all weights that it computes with.

    Args:
        folder: Where it is.
        config: As it is to be built.
        loader: Which of transformers' Auto classes loads it.
        optional: Names of weights that may be missing: they start at random.
        expected: Names of weights that nothing uses and that need not be told.
        trust_remote_code: As the user asked for it.
        **options: For ``from_pretrained``.

    Raises:
        UserError: If a weight is missing, of another shape or type, or not finite.
    """
    stored = read_headers(folder)
    _refuse_layers(folder, config, stored)
    given = {"use_safetensors": True, "output_loading_info": True} | options
    with loading(folder):
        given["attn_implementation"] = "sdpa" if _has_sdpa(config) else None
        try:
            model, report = loader.from_pretrained(
                folder, config=config, trust_remote_code=trust_remote_code, **given
            )
        except RuntimeError:
            _name_misfit(folder, config, loader, stored)
            raise
    judge(
        folder,
        missing=[name for name in report["missing_keys"] if not optional(name)],
        further=[name for name in report["unexpected_keys"] if not expected(name)],
    )
    _refuse_whole_numbers(folder, model, stored)
    refuse_not_finite(folder, model.state_dict().items())
    return model


def save_tokenizer(tokenizer: Any, folder: Path, length: int) -> None:  # noqa: ANN401 - transformers is untyped
    """Write a tokenizer that says where texts are cut, for readers that know no other file."""
    before, older = tokenizer.model_max_length, tokenizer.init_kwargs.pop("max_length", None)
    tokenizer.model_max_length = length
    tokenizer.save_pretrained(folder)
    tokenizer.model_max_length = before
    if older is not None:
        tokenizer.init_kwargs["max_length"] = older


def refuse_other_vocabulary(folder: Path, tokenizer: Any, model: Any) -> None:  # noqa: ANN401 - untyped
    """Refuse a tokenizer that knows entries for which the model has no row.

    Raises:
        UserError: If it is so.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    with loading(folder):
        entries = max(tokenizer.get_vocab().values(), default=-1) + 1
    if entries > rows:
        raise UserError(
            folder,
            f"has embeddings for {rows} entries, fewer than its tokenizer",
            got=entries,
            cure="Take both from one place",
        )


@torch.no_grad()
def try_out(folder: Path, tokenizer: Any, model: Any) -> None:  # noqa: ANN401 - untyped
    """Run a word through a model: what neither config nor weights betray shows here, not hours later.

    Raises:
        UserError: If it fails, or gives numbers that are not finite.
    """
    training = model.training
    model.eval()
    with loading(folder):
        ids = torch.tensor([tokenizer(PROBE)["input_ids"] or [0]], device=model.device)
        states = encoder_of(model.base_model)(input_ids=ids, use_cache=False).last_hidden_state
    model.train(training)
    if states.dim() != 3 or not states.isfinite().all():
        raise UserError(folder, "gives numbers that are not finite for a word", cure=CURE)


def _has_sdpa(config: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    try:
        model = AutoModel._model_mapping[type(config)]  # noqa: SLF001 - no public look-up
    except KeyError:  # code from a repository: let transformers decide
        return False
    return bool(getattr(model, "_supports_sdpa", False))


def _refuse_layers(folder: Path, config: Any, stored: Mapping[str, Stored]) -> None:  # noqa: ANN401
    """Refuse counts of layers that the weights cannot have, before as many modules are built."""
    most = max(len(stored), MOST_LAYERS)
    with loading(folder / "config.json"):
        stated = config.to_dict()
    for name, value in _numbers(stated):
        if "layer" in name and value > most:
            raise UserError(
                f"{folder / 'config.json'}: {name}",
                f"asks for more layers than the {len(stored)} tensors of the weights can be",
                got=value,
                cure=CURE,
            )


def _numbers(content: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield str(name), value


def _name_misfit(folder: Path, config: Any, loader: Any, stored: Mapping[str, Stored]) -> None:  # noqa: ANN401
    """Say which tensor has another shape, where transformers says only that one has."""
    with torch.device("meta"):
        wanted = shapes_of(loader.from_config(config).state_dict())
    found = {_known_as(name, wanted): one.shape for name, one in stored.items()}
    shared = {name: shape for name, shape in found.items() if name in wanted}
    compare(folder, {name: wanted[name] for name in shared}, shared)


def _known_as(name: str, known: Mapping[str, Any]) -> str:
    """Return the name of a file's tensor in the model: with a head's prefix, without, or in today's words."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    forms = [name, name.partition(".")[2], *(one for one in known if one.endswith(f".{name}"))]
    return next((form for form in forms if form in known), name)


def _refuse_whole_numbers(folder: Path, model: Any, stored: Mapping[str, Stored]) -> None:  # noqa: ANN401
    """Refuse whole numbers where the model computes with fractions: they would load without a word."""
    if getattr(model.config, "quantization_config", None) is not None:
        return
    weights = dict(model.named_parameters())
    for name, one in stored.items():
        if not one.is_float and _known_as(name, weights) in weights:
            problem = f"holds {name} as whole numbers"
            raise UserError(folder, problem, got=one.dtype, cure="Save the weights as floats")
