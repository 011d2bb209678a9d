"""The run folder: what a training run leaves behind, and how to find one's way in it."""

import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import torch
from pydantic import BaseModel
from torch import nn

from embedtrain.errors import UserError
from embedtrain.files import (
    appearing_folder,
    is_run,
    refuse_existing,
    refuse_no_run,
    write_file,
    write_json,
)
from embedtrain.models.backbone.frozen import load_trained_weights
from embedtrain.models.backbone.lora import merge_lora, save_adapter
from embedtrain.models.build import adapted_part, build_model
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.pretraining.folder import build_masked_autoencoder
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.environment import describe_environment
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import AnyRecipe, Recipe, dump_recipe, load_recipe
from embedtrain.training.callbacks import is_time_over, list_checkpoints
from embedtrain.training.fitting import Places, Start
from embedtrain.training.measuring import BEST, is_patience_over
from embedtrain.training.ranks.processes import first_rank_first
from embedtrain.training.settings import TrainerConfig

logger = logging.getLogger(__name__)

DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, UnpicklingError, BadZipFile)
"""What reading a damaged checkpoint raises."""


class RunFolder:
    """The files of a run, by name.

    It need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        """The resolved recipe: every default written out."""
        self.metrics = path / "metrics.csv"
        self.speed = path / "speed.csv"
        """One row of figures per logged step."""
        self.checkpoints = path / "checkpoints"
        """Whole training states, for resuming."""
        self.model = path / "model"
        """The exported model."""
        self.decoder = path / "decoder"
        """The decoder of a pre-training run, to go on with."""
        self.adapter = path / "adapter"
        """The adapters alone, where a frozen backbone was trained with some; in peft's files."""
        self.evaluation = path / "evaluation.json"
        """Scores before and after."""
        self.before = path / "before.json"
        """The evaluation before training, kept so that resuming need not measure it again."""
        self.summary = path / "summary.json"
        """Seconds, and a query before and after: what the end of the run prints."""
        self.data = path / "data.json"
        """Sizes, lengths and fingerprints of the training data."""
        self.environment = path / "environment.json"
        """Versions, machine, git commit and command."""
        self.given = path / "given"
        """Data that were given in memory, so that the run can go on without them."""

    @property
    def places(self) -> Places:
        """What training writes."""
        return Places(self.path, self.metrics, self.checkpoints)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def is_run(self) -> bool:
        """Whether the folder holds a run at all."""
        return is_run(self.path)


def create_run(path: Path, recipe: AnyRecipe, reports: Sequence[BaseModel]) -> RunFolder:
    """Start a run folder, which appears with all that resuming needs; ``reports`` say what the data are.

    Raises:
        UserError: If the folder exists and is not empty.
    """
    refuse_existing(path)
    given = RunFolder(path.resolve()).given
    with appearing_folder(path) as building:
        new = RunFolder(building)
        write_json(new.environment, describe_environment())
        new.checkpoints.mkdir()
        write_file(new.recipe, dump_recipe(recipe, new.given, given))
        write_json(new.data, [report.model_dump() for report in reports])
    return RunFolder(path)


@contextmanager
def withdrawn(run: RunFolder) -> Iterator[None]:
    """Take a new run's folder away again where a mistake ends it before it holds anything to go on with.

    So the same command runs once the mistake is mended.
    """
    try:
        yield
    except UserError:
        kept = (
            *run.checkpoints.glob("*"),
            *(one for one in (run.before, run.model) if one.exists()),
        )
        if not kept:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def open_run(path: Path, overrides: Sequence[str] = ()) -> tuple[RunFolder, AnyRecipe]:
    """Open an existing run folder; ``overrides`` change its recipe for this time.

    Raises:
        UserError: If it holds no run.
    """
    refuse_no_run(path)
    run = RunFolder(path)
    return run, load_recipe(run.recipe, overrides)


def found_start(run: RunFolder, config: TrainerConfig) -> Start:
    """Return where a run goes on: behind its newest checkpoint, at step 0 if there is none.

    One that the clock ended goes on where ``config`` gives more time than it had.
    """
    with first_rank_first():  # it sets damaged ones aside
        found = latest_state(run)
    if found is None:
        return Start()
    path, state = found
    console.print(f"Resuming {run.path} at step {state['global_step']}")
    callbacks = state["callbacks"]
    out_of_time = is_time_over(callbacks.get("WallLimit", {}), config.max_seconds)
    is_over = out_of_time or is_patience_over(callbacks.get("Validation", {}), config.patience)
    return Start(state["global_step"], path, is_over, out_of_time)


def latest_state(run: RunFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be read, and its content; None if there is none.

    A damaged one is set aside, under the name ``.damaged``: the one before it is there for this.

    Raises:
        UserError: If there are some and all are damaged.
    """
    found, damaged = list_checkpoints(run.checkpoints), []
    for path in reversed(found):
        try:
            state = _read(path)
        except DAMAGE as error:
            damaged.append((path, str(error)))
            continue
        for bad, reason in damaged:
            set_aside = bad.with_suffix(".damaged")
            logger.warning(
                "%s is damaged (%s); using the one before it, and keeping it as %s",
                bad, reason, set_aside.name,
            )  # fmt: skip
            bad.rename(set_aside)
        return path, state
    if found:
        cure = "Remove them, and --resume begins the run anew"
        raise UserError(run.checkpoints, "holds damaged checkpoints only", cure=cure)
    return None


def load_trained(run: RunFolder, recipe: Recipe) -> TextModel:
    """Return the run's best model: by validation where the recipe validates, else the last one.

    Adapters are folded into the weights, and kept beside in ``adapter/``.
    """
    best = run.checkpoints / BEST
    state = _read_best(best) if best.is_file() else _latest(run)
    torch.manual_seed(recipe.trainer.seed)  # of new layers that are frozen no checkpoint knows
    model = build_model(recipe.model, recipe.trainer.accelerator)
    # Adapters of a masked-language head lie beside the backbone, not in it.
    _fill(model, adapted_part(model), state, run, recipe)
    return model


def load_checkpoint(run: RunFolder, recipe: Recipe, path: Path | None) -> TextModel:
    """Return the model of a checkpoint, adapters folded in; without one that which the run started from.

    Raises:
        UserError: If it cannot be read.
    """
    torch.manual_seed(recipe.trainer.seed)
    model = build_model(recipe.model, recipe.trainer.accelerator)
    if path is not None:
        _load(model, _read_best(path), run)
    if recipe.model.lora is not None and not recipe.model.lora.adapters:
        merge_lora(adapted_part(model))
    return model.eval()


def exports_start(run: RunFolder) -> bool:
    """Whether validation found no checkpoint better than the start, which is what the run exports then."""
    best = run.checkpoints / BEST
    if not best.is_file():
        return False
    return bool(
        torch.load(best, map_location="cpu", weights_only=True, mmap=True)["global_step"] == 0
    )


def build_pretrained(recipe: PretrainRecipe) -> MaskedAutoencoder:
    """Return the model that a pre-training recipe starts from."""
    torch.manual_seed(recipe.trainer.seed)
    return build_masked_autoencoder(
        recipe.model, recipe.objective.computation, recipe.data.length, recipe.trainer.accelerator
    )


def load_pretrained(run: RunFolder, recipe: PretrainRecipe) -> MaskedAutoencoder:
    """Return the model of a pre-training run's newest checkpoint."""
    state = _latest(run)
    model = build_pretrained(recipe)
    _fill(model, model.language.model, state, run, recipe)
    return model.eval()


def _latest(run: RunFolder) -> dict[str, Any]:
    found = latest_state(run)
    if found is None:
        raise UserError(run.checkpoints, "holds no checkpoint", cure="Train the run first")
    return found[1]


def _fill(
    model: nn.Module, backbone: nn.Module, state: dict[str, Any], run: RunFolder, recipe: AnyRecipe
) -> None:
    """Load trained weights; adapters are kept on their own, then folded in."""
    _load(model, state, run)
    if (
        isinstance(model, DenseEncoder) and model.adapters is not None
    ):  # there is no one sum of several
        with appearing_folder(run.adapter) as building:
            model.adapters.save(building, recipe.model.backbone)
    elif recipe.model.lora is not None:
        with appearing_folder(run.adapter) as building:
            save_adapter(backbone, recipe.model.lora, recipe.model.backbone, building)
        merge_lora(backbone)


def _load(model: nn.Module, state: dict[str, Any], run: RunFolder) -> None:
    weights = state["state_dict"].items()
    own = {key.removeprefix("model."): value for key, value in weights}
    load_trained_weights(run.checkpoints, model, own)


def _read_best(path: Path) -> dict[str, Any]:
    try:
        return _read(path)
    except DAMAGE as error:
        cure = "Remove it: the last checkpoint is exported then"
        raise UserError(path, "is damaged", got=str(error), cure=cure) from error


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint as tensors and plain values only: nothing in it can run.

    torch does not compare the checksums that it writes; here a flipped bit is found.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} does not have its checksum")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state["state_dict"]
    return state
