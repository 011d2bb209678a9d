r"""Low-rank adapters on a frozen backbone: trained, kept on their own, and folded into plain layers on export.

Each linear layer $W$ becomes $W + \frac{\alpha}{r} B A$ with $A \in R^{r \times in}$, $B \in R^{out \times r}$
and $B = 0$ at the start, so training begins at the backbone itself. With ``dora`` the rows of the sum are
rescaled to learned lengths. The frozen weights may lie in bfloat16 or in four bits (QLoRA).

Source: Hu et al. (2021), https://arxiv.org/abs/2106.09685; Liu et al. (2024), DoRA,
https://arxiv.org/abs/2402.09353; Dettmers et al. (2023), QLoRA, https://arxiv.org/abs/2305.14314.
"""

import importlib.util
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from embedtrain.contract.adapters import TaskAdapters, names_of
from embedtrain.errors import UserError, missing_extra
from embedtrain.models.backbone.files import read_weights, write_weights
from embedtrain.models.backbone.fit import compare, shapes_of
from embedtrain.models.backbone.whole_copies import begin_as_copies, full_ranks
from embedtrain.section import Count, Section

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

WEIGHTS_FILE = "adapter_model.safetensors"
Weight = TypeVar("Weight")
DEFAULT = "default"
"""What peft calls an adapter without a name."""
PREFIX = "base_model.model."
"""What peft puts before the names of the weights in a file."""
CURE = "Use the rank, targets and dora that it was trained with"


class LoraConfig(Section):
    """Low-rank adapters; the backbone itself stays as it is."""

    rank: Count = 16
    alpha: PositiveFloat = 32.0
    """The adapters' sum is scaled by ``alpha / rank``."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the adapters' input."""
    targets: tuple[str, ...] = ()
    """Ends of the names of the linear layers to adapt, such as ``q_proj``; empty adapts all."""
    whole: bool = False
    """Whole copies of the layers' weights in place of ``rank``: one factor of each is the unit matrix and stays it, so the
    other is what the copy has moved by. Biases stay those of the backbone. With ``adapters`` these are SciMult's experts."""
    dora: bool = False
    """Learn the length of each row beside its direction (DoRA)."""
    frozen: Literal["float32", "bfloat16", "nf4"] = "float32"
    """How the frozen weights are kept; nf4 takes four bits each and needs bitsandbytes."""
    start: str | None = None
    """Folder of an adapter to go on with, such as ``runs/x/adapter``; null starts at the backbone. Of several adapters it
    holds a folder for each."""
    adapters: TaskAdapters = Field(default={})
    """Several adapters in one backbone: a list of tasks, or a name, or names for ``query`` and ``document``, by task.
    Sources of data name their task, encoding does so by ``--instruction``; the first is the usual one."""

    @model_validator(mode="after")
    def _several_can_be_saved(self) -> "LoraConfig":
        if self.adapters and self.frozen == "nf4":
            raise ValueError(
                "several adapters are saved beside plain weights: set frozen: bfloat16"
            )
        return self

    @model_validator(mode="after")
    def _copies_have_no_rank(self) -> "LoraConfig":
        fields = type(self).model_fields
        names = ("rank", "alpha", "dropout", "dora")
        lost = [name for name in names if getattr(self, name) != fields[name].default]
        if self.whole and lost:
            raise ValueError(f"whole copies have no {', '.join(lost)}: drop it")
        return self

    @property
    def names(self) -> list[str]:
        """Names of all adapters; of a single one peft's."""
        return names_of(self.adapters) or [DEFAULT]


def loading_options(config: LoraConfig | None) -> dict[str, Any]:
    """Return how transformers is to load the weights.

    Raises:
        UserError: If four bits are asked for and bitsandbytes is missing.
    """
    if config is None or config.frozen == "float32":
        return {"dtype": torch.float32}
    if config.frozen == "bfloat16":
        return {"dtype": torch.bfloat16}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "qlora", "for model.lora.frozen: nf4")
    from transformers import BitsAndBytesConfig

    # Double quantisation keeps the scales in eight bits: 4.13 bits a weight instead of 4.5.
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    return {"dtype": torch.float32, "quantization_config": quantized}


def keep_differentiable(backbone: nn.Module) -> None:
    """Keep bitsandbytes from packing four bits anew for inference, in place.

    On processors with bfloat16 it does so at the first call that trains nothing, a validation. Its product of packed
    weights has no gradient, and training would go on without what passes through them.
    """
    packing: Any = [one for one in backbone.modules() if hasattr(one, "support_avx512bf16_for_cpu")]
    for layer in packing:
        layer.support_avx512bf16_for_cpu = False


def add_lora(backbone: Any, config: LoraConfig) -> None:  # noqa: ANN401 - transformers is untyped
    """Put adapters into a backbone, in place, and freeze everything else of it.

    Raises:
        UserError: If no layer has such a name, or ``start`` holds an adapter of another shape.
    """
    import peft  # takes a second, which commands without adapters need not pay

    head = backbone.get_output_embeddings()
    linear = [
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    ]
    chosen = [
        name
        for name in linear
        if not config.targets or any(f".{name}".endswith(f".{end}") for end in config.targets)
    ]
    ends = sorted({name.rpartition(".")[2] for name in linear})
    for end in config.targets or ("",):
        if not any(f".{name}".endswith(f".{end}" if end else "") for name in chosen):
            raise UserError(
                "model.lora.targets",
                "names no linear layer of the backbone",
                got=end or config.targets,
                cure=f"Use some of {', '.join(ends) or 'a backbone that has linear layers'}",
            )
    with warnings.catch_warnings():
        # peft 0.21 asks whether several adapters are meant.
        warnings.filterwarnings("ignore", ".*Already found a `peft_config`.*")
        ranks = full_ranks(backbone, chosen) if config.whole else {}
        for name in config.names:
            peft.inject_adapter_in_model(
                _as_peft(config, chosen, ranks), backbone, adapter_name=name
            )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # bfloat16 would round small steps away
    if config.whole:
        begin_as_copies(layer for _, layer in adapted_layers(backbone))
    for name in config.names if config.start is not None else ():
        own = Path(config.start or "") / (name if config.adapters else "")
        _load_adapter(backbone, own, name)


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, "LoraLayer"]]:
    """Yield the layers that have an adapter, with their names."""
    from peft.tuners.lora import LoraLayer

    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            yield name, layer


def save_adapter(
    backbone: Any,  # noqa: ANN401
    config: LoraConfig,
    base: str,
    folder: Path,
    name: str = DEFAULT,
) -> None:
    """Write an adapter alone, in the files that peft and transformers read."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = adapter_weights(backbone.state_dict(), name)
    named = {PREFIX + label: value for label, value in weights.items()}
    write_weights(folder / WEIGHTS_FILE, named)
    adapted = {layer: one.r[name] for layer, one in adapted_layers(backbone)}
    stored = _as_peft(config, list(adapted), adapted if config.whole else {})
    stored.base_model_name_or_path, stored.inference_mode = base, True
    stored.save_pretrained(folder)


def adapter_weights(weights: Mapping[str, Weight], name: str) -> dict[str, Weight]:
    """Return the weights of one adapter, as peft calls them in a file, which leaves the adapter's name out.

    peft 0.21 itself takes a name for part of a layer's or of another adapter's.
    """
    own = re.compile(rf"(.+\.lora_\w+)\.{name}(\..+)?")
    found = ((own.fullmatch(label), value) for label, value in weights.items())
    return {
        match[1] + ("" if match[1].endswith("_vector") else match[2] or ""): value
        for match, value in found
        if match is not None
    }


def _as_peft(config: LoraConfig, layers: list[str], ranks: Mapping[str, int]) -> Any:  # noqa: ANN401 - peft is untyped
    """Return an adapter's settings; ``ranks`` are those of layers with one of their own, whose sum is not scaled."""
    import peft

    return peft.LoraConfig(
        rank_pattern=dict(ranks),
        alpha_pattern=dict(ranks),
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=layers,
        use_dora=config.dora,
    )


def _load_adapter(backbone: Any, folder: Path, name: str) -> None:  # noqa: ANN401
    import peft

    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(
            "model.lora.start",
            f"holds no {WEIGHTS_FILE}",
            got=str(folder),
            cure="Give the adapter/ folder of a run",
        )
    # What adapter_config.json says of a base is not followed: the recipe names the backbone.
    weights = {
        label.removeprefix(PREFIX): value
        for label, value in read_weights(folder / WEIGHTS_FILE).items()
    }
    wanted = adapter_weights(backbone.state_dict(), name)
    place = f"model.lora.start: {folder / WEIGHTS_FILE}"
    compare(place, shapes_of(wanted), shapes_of(weights), cure=CURE, exact=True)
    peft.set_peft_model_state_dict(backbone, weights, adapter_name=name)


def merge_lora(backbone: Any) -> None:  # noqa: ANN401
    """Fold the adapters into plain float32 layers, in place: what is left is an ordinary backbone."""
    adapted = dict(adapted_layers(backbone))
    for name, layer in list(backbone.named_modules()):
        if name in adapted or (_in_four_bits(layer) and not name.endswith(".base_layer")):
            owner = backbone.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], _plain(layer, adapted=name in adapted))
    for parameter in backbone.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    if hasattr(backbone, "peft_config"):
        del backbone.peft_config
    if getattr(backbone.config, "quantization_config", None) is not None:
        del backbone.config.quantization_config
        backbone.is_quantized = backbone.is_loaded_in_4bit = False
        backbone.hf_quantizer = None


def _in_four_bits(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Linear4bit"  # bitsandbytes need not be installed


@torch.no_grad()
def _plain(layer: Any, *, adapted: bool) -> nn.Linear:  # noqa: ANN401 - of peft or bitsandbytes
    """Return the linear layer that computes what ``layer`` does."""
    base: Any = layer.get_base_layer() if adapted else layer
    weight = _full_weight(base)
    if adapted:
        for adapter in layer.active_adapters:
            weight = weight + layer.get_delta_weight(adapter).float()
            if adapter in layer.lora_magnitude_vector:
                length = layer.lora_magnitude_vector[adapter].weight.float()
                weight = weight * (length / weight.norm(dim=1))[:, None]
    plain = nn.Linear(
        base.in_features, base.out_features, bias=base.bias is not None, device=weight.device
    )
    plain.weight.copy_(weight)
    if base.bias is not None:
        plain.bias.copy_(base.bias)
    return plain


def _full_weight(base: Any) -> Tensor:  # noqa: ANN401
    """Return the weight in float32; one in four bits as what the layer makes of the unit matrix, however it is packed."""
    if not _in_four_bits(base):
        plain: Tensor = base.weight.float()
        return plain
    unit = torch.eye(base.in_features, device=base.weight.device)
    offset = 0.0 if base.bias is None else base.bias.float()
    full: Tensor = base(unit).float() - offset
    return full.T.contiguous()
