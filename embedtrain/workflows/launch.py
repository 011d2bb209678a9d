"""Do the work of a run in this process, or in as many as its recipe asks for."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from embedtrain.errors import UserError
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.training.ranks.launcher import launch
from embedtrain.training.ranks.processes import is_rank, joined, must_launch, on_first_rank
from embedtrain.training.ranks.ties import refuse_living_ranks
from embedtrain.training.settings import TrainerConfig

EXECUTION = (
    "accelerator",
    "activation_offload",
    "checkpoint_every",
    "chunk_tokens",
    "compile",
    "devices",
    "gradient_checkpointing",
    "max_seconds",
    "nodes",
    "offload",
    "prefetch",
    "rematerialize",
    "strategy",
    "workers",
)
"""Keys of ``trainer:`` that may change when a run goes on: they do not change what a step computes."""


def begin(config: TrainerConfig, work: Callable[[], object]) -> bool:
    """Begin a run that several ranks will go on with, once for all; False where one process does it all."""
    if not must_launch(config) and not is_rank():
        return False
    with joined(config.accelerator):
        on_first_rank(work)
    return True


def go_on(
    run: RunFolder, config: TrainerConfig, work: Callable[[], RunFolder], overrides: Sequence[str]
) -> RunFolder:
    """Call ``work`` here if this is a rank or alone, else start the ranks, which call it."""
    if must_launch(config):
        command = [sys.executable, "-m", "embedtrain", "train", "--resume", str(run.path)]
        launch([*command, *overrides], config.devices, run.path)
        return run
    if not is_rank():
        refuse_living_ranks(run.path)
    with joined(config.accelerator):
        return work()


def check_overrides(path: Path, overrides: Sequence[str]) -> None:
    """Refuse to change what a run computes in its middle.

    Raises:
        UserError: For a key that is none of how it is executed.
    """
    for text in overrides:
        section, _, key = text.partition("=")[0].partition(".")
        if section != "trainer" or key not in EXECUTION:
            raise UserError(
                f"--resume {path}",
                "cannot change what the run computes",
                got=text,
                cure=f"Only these may change: trainer.{{{', '.join(EXECUTION)}}}",
            )
