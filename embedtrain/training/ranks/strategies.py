"""How several devices share the work: Lightning's strategies, on CPU as well, with one form of checkpoint.

Whatever shards weights, gradients or the optimizer's state, a checkpoint holds them whole, in the form that one
process writes: so it can be resumed with another strategy or another number of ranks, and nothing has to be
converted before export.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from pytorch_lightning.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    ParallelStrategy,
    Strategy,
)
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from embedtrain.errors import UserError, missing_extra
from embedtrain.training.settings import TrainerConfig


def check_strategy(
    config: TrainerConfig,
    *,
    pretrains: bool,
    has_interaction: bool = False,
    has_contrast_head: bool = False,
    refreshes: bool = False,
    batch_sizes: Sequence[int] = (),
) -> None:
    """Raise a UserError now for what a strategy cannot do."""
    name = config.strategy
    for size in batch_sizes:
        if size % config.accumulate or size // config.accumulate < config.num_ranks:
            raise UserError(
                "data.sources: batch_size",
                f"cannot be cut into {config.accumulate} micro-batches for {config.num_ranks} devices",
                got=size,
                cure="Make it a multiple of trainer.accumulate, with a query for each device",
            )
    if name.startswith("deepspeed") and find_spec("deepspeed") is None:
        raise missing_extra("deepspeed", "deepspeed", f"by trainer.strategy: {name}")
    if name == "deepspeed_3" and (pretrains or has_interaction):
        what = "a masked autoencoder, whose loss reads the word embeddings outside of their module"
        if has_interaction:
            what = "model.interaction, whose weights the loss reads outside of the model"
        cure = "Use fsdp, which shards weights as well, or deepspeed_2"
        raise UserError("trainer.strategy", f"does not fit {what}", got=name, cure=cure)
    if has_contrast_head and name in ("fsdp", "deepspeed_3"):
        what = "model.contrast_head, which works outside of the model's forward pass"
        cure = "Use ddp or deepspeed_2"
        raise UserError("trainer.strategy", f"does not fit {what}", got=name, cure=cure)
    if refreshes and (config.shares_work or config.accumulate > 1):
        raise UserError(
            "refresh",
            "mines with the model of one device and one batch per step",
            got=f"{config.num_ranks} devices, accumulate {config.accumulate}",
            cure="Train on one device, or mine between two runs with a recipe of several stages",
        )
    if config.activation_offload and not torch.cuda.is_available():
        raise UserError(
            "trainer.activation_offload",
            "moves activations from a GPU to main memory, and there is no GPU",
            got=True,
            cure="Use rematerialize",
        )


def needs_equal_chunks(config: TrainerConfig) -> bool:
    """Whether all ranks must run as many chunks.

    Where weights are sharded, each forward pass fetches them from the others. ZeRO 2 sends gradients in the
    order in which they are done, which differs with the number of chunks: unequal ones are silently mixed up.
    """
    return config.strategy in ("deepspeed_2", "deepspeed_3", "fsdp")


def build_strategy(config: TrainerConfig) -> Strategy | str:
    """Return Lightning's strategy for the settings."""
    name = config.strategy
    if not config.shares_work:
        return "auto"
    if name == "fsdp":
        return FullySharded(
            data_parallel_size=config.num_ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
    if name.startswith("deepspeed"):
        from embedtrain.training.ranks.deepspeed import ZeroStrategy

        return ZeroStrategy(int(name[-1]), offload=config.offload)
    return DDPStrategy()


def shard_model(model: nn.Module, strategy: Strategy) -> None:
    """Shard a model in place where the strategy leaves that to the module: each layer, then the rest."""
    if not isinstance(strategy, FullySharded):
        return
    mesh = strategy.device_mesh["data_parallel"]
    for part in list(model.modules()):
        if isinstance(part, nn.ModuleList):
            for layer in part:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in ("embed", "score"):  # what measures a model calls, beside its forward pass
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


class WholeCheckpoints(ParallelStrategy):  # type: ignore[misc]  # Lightning is not analysed
    """What strategies that shard have in common: each rank takes its part of a checkpoint that holds all."""

    lightning_restore_optimizer = True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:  # noqa: ANN401
        """Read the whole checkpoint."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Do nothing: the weights were loaded before they were sharded."""


class FullySharded(WholeCheckpoints, ModelParallelStrategy):  # type: ignore[misc]  # not analysed
    """FSDP2: every rank holds a part of each weight and fetches the rest layer by layer."""

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:  # noqa: ANN401
        """Collect AdamW's moments in the form that one process would store."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        stored = optimizer.state_dict()
        state = {
            number: {
                key: value.full_tensor().cpu() if isinstance(value, DTensor) else value
                for key, value in values.items()
            }
            for number, values in stored["state"].items()
        }
        return {"state": state, "param_groups": stored["param_groups"]}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each rank its part of the moments."""
        for optimizer, stored in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {}
            for number, values in stored["state"].items():
                like = parameters[number]
                state[number] = {
                    key: distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
                    if value.ndim
                    else value
                    for key, value in values.items()
                }
            optimizer.load_state_dict({"state": state, "param_groups": stored["param_groups"]})
