"""DeepSpeed's ZeRO under Lightning, also on CPUs, with checkpoints that hold everything whole.

Lightning 2.6 restricts DeepSpeed to GPUs in three places, none of which has a reason in DeepSpeed 0.19: they
are overridden here. Its own checkpoints are folders of pickles bound to a number of ranks; these are not.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, ParallelStrategy
from torch import Tensor, nn

from embedtrain.training.ranks.strategies import WholeCheckpoints

MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroStrategy(WholeCheckpoints, DeepSpeedStrategy):  # type: ignore[misc]  # Lightning is not analysed
    """ZeRO: the optimizer's state (1), also gradients (2), also weights (3) sharded among ranks.

    ``offload`` keeps the optimizer's state in main memory.
    """

    def __init__(self, stage: int, *, offload: bool) -> None:
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        zero: dict[str, Any] = {"stage": stage, "overlap_comm": torch.cuda.is_available()}
        if offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        super().__init__(
            config={
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                # AdamW of torch, not DeepSpeed's own, which would be compiled at the first start.
                "zero_force_ds_cpu_optimizer": False,
                "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own log, which is off
            }
        )
        self.stage = stage

    def setup_precision_plugin(self) -> None:
        """Leave batches as they are: Lightning's own would look for floats in them to convert."""
        super().setup_precision_plugin()
        self.precision_plugin.convert_input = lambda batch: batch

    def setup_environment(self) -> None:
        """Meet the other ranks; Lightning's own refuses CPUs."""
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """Use the group that was joined; Lightning's own wants GPU numbers."""
        import deepspeed.ops

        # Under rematerialisation it warns that it does not know the type of our outputs, at every start.
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # It serves tensor-parallel inference alone, and building it takes half a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _setup_model_and_optimizer(
        self,
        model: nn.Module,
        optimizer: Any,  # noqa: ANN401 - DeepSpeed is untyped
        lr_scheduler: Any = None,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        """Hand model and optimizer to DeepSpeed; Lightning's own passes no rank for a CPU."""
        import deepspeed

        engine, wrapped, _, _ = deepspeed.initialize(
            args=Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, wrapped

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: Any,  # noqa: ANN401
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Let the first rank write the whole checkpoint."""
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Collect the weights, one after the other, on the first rank."""
        module = self.lightning_module
        if self.stage < 3:
            return module.state_dict() if self.is_global_zero else {}
        import deepspeed

        weights: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            with deepspeed.zero.GatheredParameters([parameter]):
                if self.is_global_zero:
                    weights[name] = parameter.detach().cpu().clone()
        if not self.is_global_zero:
            return {}
        kept = module.state_dict().keys()
        buffers = {name: value for name, value in module.named_buffers() if name in kept}
        return weights | buffers

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:  # noqa: ANN401
        """Collect AdamW's moments in the form that one process would store."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link_moments(optimizer)
        groups, parameters = self._numbered(optimizer)
        steps = [float(state["step"]) for state in optimizer.optimizer.state.values() if state]
        state: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(parameters if steps else []):
            moments = {
                key: safe_get_full_optimizer_state(parameter, key).cpu().clone() for key in MOMENTS
            }
            if self.is_global_zero:
                state[number] = {"step": torch.tensor(steps[0])} | moments
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each rank its part of the moments."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        (stored,) = checkpoint["optimizer_states"]
        (optimizer,) = self.optimizers
        _, parameters = self._numbered(optimizer)
        for group, saved in zip(optimizer.param_groups, stored["param_groups"], strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        if not stored["state"]:
            return
        step = next(iter(stored["state"].values()))["step"]
        for flat in self._flat_parameters(optimizer):
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            optimizer.optimizer.state[flat] = {"step": step.clone()} | moments
        self._link_moments(optimizer)
        for number, parameter in enumerate(parameters):
            for key in MOMENTS:
                value = stored["state"][number][key].to(parameter.device)
                if self.stage < 3:
                    safe_set_full_optimizer_state(parameter, value, key)
                else:
                    safe_set_local_optimizer_state(parameter, self._own_part(parameter, value), key)

    def _own_part(self, parameter: Any, value: Tensor) -> Tensor:  # noqa: ANN401 - DeepSpeed's
        """Return this rank's part of a moment; a weight smaller than the ranks are many has empty parts.

        DeepSpeed 0.19 fails on those when it is given the whole.
        """
        size = parameter.ds_tensor.ds_numel
        room = size * self.world_size - value.numel()
        padded = nn.functional.pad(value.flatten(), (0, room))
        return padded.narrow(0, size * self.global_rank, size)

    def _link_moments(self, optimizer: Any) -> None:  # noqa: ANN401
        """Tell each weight where its moments are.

        DeepSpeed 0.19 does so after the first group's first step, when the other groups have none yet.
        """
        if self.stage < 3:
            from deepspeed.utils import lazy_init_hp_params_optimizer_state

            flat = optimizer.single_partition_of_fp32_groups
            for members, part in zip(optimizer.bit16_groups, flat, strict=True):
                lazy_init_hp_params_optimizer_state(members, part, optimizer.optimizer.state)

    def _flat_parameters(self, optimizer: Any) -> list[Tensor]:  # noqa: ANN401
        """Return what the optimizer inside really steps: this rank's part, laid out flat."""
        return list(
            optimizer.single_partition_of_fp32_groups
            if self.stage < 3
            else optimizer.fp32_partitioned_groups_flat
        )

    def _numbered(self, optimizer: Any) -> tuple[list[dict[str, Any]], list[nn.Parameter]]:  # noqa: ANN401
        """Return the groups with numbers for parameters, and the parameters by number."""
        whole = optimizer.bit16_groups if self.stage < 3 else optimizer.fp16_groups
        groups: list[dict[str, Any]] = []
        parameters: list[nn.Parameter] = []
        for group, members in zip(optimizer.param_groups, whole, strict=True):
            numbers = range(len(parameters), len(parameters) + len(members))
            parameters += members
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append(settings | {"params": list(numbers)})
        return groups, parameters
