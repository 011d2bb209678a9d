"""Lightning's Trainer, set up from a recipe."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from embedtrain.errors import missing_extra
from embedtrain.models.backbone.loading import preferred_device
from embedtrain.training.ranks.strategies import build_strategy
from embedtrain.training.settings import TrainerConfig


def build_trainer(
    config: TrainerConfig,
    num_steps: int,
    *,
    folder: Path,
    csv_logs: Sequence[Logger],
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Return a Trainer that runs ``num_steps`` steps; saving and validating are left to the callbacks.

    Callbacks see the end of a step in their order.
    """
    trainer = pl.Trainer(
        max_steps=num_steps,
        max_epochs=-1,
        accelerator="gpu" if preferred_device(config.accelerator).type == "cuda" else "cpu",
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=build_strategy(config),
        # Ours or torchrun's, every rank is started from outside and finds its number in the environment; under
        # SLURM too, of which Lightning would take one process for many, and requeue it by handlers of its own.
        plugins=[TorchElasticEnvironment() if config.shares_work else LightningEnvironment()],
        precision="32-true",  # the module itself computes in bf16 where it is asked to
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.gradient_clip or None,
        log_every_n_steps=1,
        logger=[*csv_logs, *(_logger(name, folder) for name in config.loggers)],
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,  # ours is one of the callbacks
        enable_model_summary=False,
        limit_val_batches=0,
    )
    # Lightning 2.6 puts its own in front of our handler of SIGTERM: one that waits for the other ranks inside of it.
    trainer._signal_connector.register_signal_handlers = lambda: None  # noqa: SLF001 - no setting does
    return trainer


def check_loggers(config: TrainerConfig) -> None:
    """Raise a UserError now if a logger that the recipe wants is not installed."""
    for name in config.loggers:
        if find_spec(name) is None:
            raise missing_extra(name, name, f"by trainer.loggers: [{name}]")


def _logger(name: str, folder: Path) -> Logger:
    settings: dict[str, Any] = {"save_dir": str(folder), "name": folder.name}
    if name == "tensorboard":
        return TensorBoardLogger(**settings | {"name": "tensorboard", "version": ""})
    offline = os.environ.get("WANDB_MODE") == "offline"
    return WandbLogger(**settings, project="embedtrain", offline=offline)
