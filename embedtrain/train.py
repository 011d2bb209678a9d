"""Workflow: a recipe becomes a run folder with a trained, measured and exported model."""

import json
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from embedtrain.card import render_card
from embedtrain.checkpoint import RunFolder, create_run, latest_state, load_trained, open_run
from embedtrain.contract import TextSide
from embedtrain.data.batches import BatchBuilder
from embedtrain.data.mixture import Mixture, mixture_weights
from embedtrain.data.tokenized import TokenizedSource
from embedtrain.errors import Interrupted
from embedtrain.evaluate import measure
from embedtrain.evaluation.report import compare, load_result, write_result
from embedtrain.export import write_model
from embedtrain.models.build import build_dense
from embedtrain.models.dense import DenseEncoder
from embedtrain.prepare import check_batch_size, load_task, prepare_sources
from embedtrain.progress import console
from embedtrain.recipe import Recipe
from embedtrain.training.callbacks import Checkpoints, CleanStop, CsvLog, Validation
from embedtrain.training.datamodule import BatchStream, RetrievalData
from embedtrain.training.module import RetrievalModule
from embedtrain.training.trainer import build_trainer


@dataclass(frozen=True)
class Start:
    """Where training begins: at step 0, or behind a checkpoint."""

    step: int = 0
    checkpoint: Path | None = None


def train(recipe: Recipe, output: Path) -> RunFolder:
    """Train a recipe from the beginning.

    Raises:
        UserError: If the recipe, the data or the output folder is not usable.
        Interrupted: If a signal stopped it.
    """
    torch.manual_seed(recipe.trainer.seed)
    model = build_dense(recipe.model)
    recipe = with_contract(recipe, model)
    sources = prepare_sources(recipe.data, model.tokenization)
    check_batch_size(sources, recipe.trainer.batch_size)
    return _run(create_run(output, recipe), recipe, model, sources, Start())


def resume(path: Path) -> RunFolder:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped."""
    run, recipe = open_run(path)
    found = latest_state(run)
    torch.manual_seed(recipe.trainer.seed)
    model = build_dense(recipe.model)
    sources = prepare_sources(recipe.data, model.tokenization)
    start = Start() if found is None else Start(found[1]["global_step"], found[0])
    console.print(f"Resuming {path} at step {start.step}")
    return _run(run, recipe, model, sources, start)


def with_contract(recipe: Recipe, model: DenseEncoder) -> Recipe:
    """Write the contract that the model resolved into the recipe: the run folder leaves nothing open."""
    contract = model.contract
    sides = {
        "query": TextSide(prompt=contract.query_prompt, length=contract.query_length),
        "document": TextSide(prompt=contract.document_prompt, length=contract.document_length),
    }
    resolved = {"pooling": contract.pooling, "similarity": contract.similarity}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=sides | resolved)})


def _run(
    run: RunFolder,
    recipe: Recipe,
    model: DenseEncoder,
    sources: list[TokenizedSource],
    start: Start,
) -> RunFolder:
    reports = [source.report.model_dump() for source in sources]
    run.data.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    task, split = None, ""
    if recipe.evaluation is not None:
        split = recipe.evaluation.split
        task = load_task(recipe.evaluation.path, split)
        if not run.before.is_file():
            write_result(measure(model, task, split, "Before training"), run.before)
    random_state = torch.get_rng_state()
    torch.manual_seed(recipe.trainer.seed)  # whether "before" was measured must not change the run
    _fit(run, recipe, model, sources, start)
    torch.set_rng_state(random_state)
    trained = load_trained(run, recipe)
    if task is not None:
        before = load_result(run.before)
        after = compare(measure(trained, task, split, "After training"), before, "before training")
        both = {"before": before.to_json(), "after": after.to_json()}
        partial = run.evaluation.with_suffix(".partial")
        partial.write_text(json.dumps(both, indent=2) + "\n", encoding="utf-8")
        partial.replace(run.evaluation)
    write_model(trained, run.model, card=render_card(run, recipe), overwrite=True)
    return run


def _fit(
    run: RunFolder,
    recipe: Recipe,
    model: DenseEncoder,
    sources: list[TokenizedSource],
    start: Start,
) -> None:
    """Run the steps from ``start`` to the end."""
    config = recipe.trainer
    sizes = [len(source) for source in sources]
    num_steps = config.num_steps(sum(sizes))
    if start.step >= num_steps:
        return
    weights = [source.weight for source in recipe.data.sources]
    mixture = Mixture(
        sizes,
        mixture_weights(sizes, weights, recipe.data.mixing_exponent),
        batch_size=config.batch_size,
        num_steps=num_steps,
        seed=config.seed,
    )
    builder = BatchBuilder(
        sources,
        num_positives=recipe.data.num_positives,
        num_negatives=recipe.data.num_negatives,
        seed=config.seed,
    )
    stop = CleanStop()
    callbacks: list[pl.Callback] = [stop]
    if recipe.validation is not None:
        held_out = load_task(recipe.validation.path, recipe.validation.split)
        callbacks.append(Validation(held_out, recipe.validation.every_steps, run.checkpoints))
    callbacks.append(Checkpoints(run.checkpoints, config.checkpoint_every))
    with _quiet_lightning():
        trainer = build_trainer(
            config,
            num_steps,
            folder=run.path,
            csv_log=CsvLog(run.metrics, start.step),
            callbacks=callbacks,
        )
        model.train()  # loading leaves it in evaluation mode, where dropout is off
        module = RetrievalModule(model, recipe.objective, config, num_steps)
        stream = BatchStream(mixture, builder, start.step, num_steps)
        console.print(f"Training {num_steps - start.step:,} steps of {config.batch_size} queries")
        try:
            trainer.fit(
                module, RetrievalData(stream), ckpt_path=start.checkpoint, weights_only=True
            )
        except SystemExit as exit_:
            # Lightning turns the second Ctrl-C into exit code 1.
            raise KeyboardInterrupt from exit_
    if stop.received is not None and trainer.global_step < num_steps:
        raise Interrupted(
            f"stopped at step {trainer.global_step} of {num_steps} by "
            f"{signal.Signals(stop.received).name}; continue with: embedtrain train --resume {run.path}"
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice about things decided on purpose out of the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # One process reads ready-made batches from a memory-mapped file: workers would only add copies.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # Lightning 2.6 builds a pytree LeafSpec the way torch 2.13 deprecates.
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        yield
    for log, level in zip(loggers, levels, strict=True):
        log.setLevel(level)
