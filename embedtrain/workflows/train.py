"""Workflow: a recipe becomes a run folder with a trained, measured and exported model."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from embedtrain.data.batches import BatchBuilder
from embedtrain.data.examples import SourceConfig
from embedtrain.data.mixture import Mixture, mixture_weights
from embedtrain.data.sources import open_source
from embedtrain.data.tokenized import TokenizedSource, tokenize_source
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import load_result
from embedtrain.files import refuse_existing
from embedtrain.locks import owns
from embedtrain.mining.task import MiningTask, load_mining_task
from embedtrain.models.build import build_model
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.progress import console
from embedtrain.recipe.changed_settings import filled_keys
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import AnyRecipe, Recipe
from embedtrain.recipe.run_files import read_summary, refuse_other_data
from embedtrain.recipe.run_folder import (
    RunFolder,
    create_run,
    found_start,
    load_trained,
    open_run,
    withdrawn,
)
from embedtrain.release.cards.retrieval import render_card
from embedtrain.release.export import write_model
from embedtrain.stopping import going_on
from embedtrain.training.datamodule import BatchStream
from embedtrain.training.fitting import Start, fit, how_to_go_on, own_cut
from embedtrain.training.guide import encode_guide
from embedtrain.training.module import RetrievalModule
from embedtrain.training.planner import announce, plan_retrieval, within
from embedtrain.training.ranks.processes import first_rank_first, is_rank, on_first_rank
from embedtrain.training.ranks.strategies import check_strategy
from embedtrain.training.refresh import LateStream
from embedtrain.workflows.automatic import with_automatic
from embedtrain.workflows.before_after import measure_after, measure_before
from embedtrain.workflows.frozen_documents import (
    encode_documents,
    keep_document_model,
    refuse_query_model,
)
from embedtrain.workflows.launch import begin, check_overrides, go_on
from embedtrain.workflows.movement import note_movements
from embedtrain.workflows.prepare import (
    Prepared,
    cache_of,
    check_batch_size,
    prepare,
    trained_contract,
    with_contract,
    with_machine,
)
from embedtrain.workflows.pretrain import begin_pretraining, resume_pretraining, run_pretraining
from embedtrain.workflows.refresh import RefreshedBatches
from embedtrain.workflows.select.blend import settle
from embedtrain.workflows.sparse_start import start_sparse
from embedtrain.workflows.summary import (
    add_seconds,
    forget_end,
    note_begin,
    note_end,
    tell_cut,
    timed,
)
from embedtrain.workflows.validation import validating


@owns("output")
def train(recipe: AnyRecipe, output: Path) -> RunFolder:
    """Train or pre-train a recipe from the beginning.

    Raises:
        UserError: If the recipe, the data or the output folder is not usable.
        Interrupted: If a signal stopped it.
    """
    _check_strategy(recipe)
    pretrains = isinstance(recipe, PretrainRecipe)
    work: Any = (begin_pretraining, run_pretraining) if pretrains else (_begin, _run)
    first, then = work
    if begin(recipe.trainer, lambda: first(recipe, output)):
        return resume(output)
    begun = first(recipe, output)
    with going_on(how_to_go_on(output)), nullcontext() if is_rank() else withdrawn(begun[0]):
        return then(*begun, Start())  # type: ignore[no-any-return]


def _check_strategy(recipe: AnyRecipe) -> None:
    if isinstance(recipe, PretrainRecipe):
        check_strategy(recipe.trainer, pretrains=True)
        return
    dense = recipe.model if isinstance(recipe.model, DenseConfig) else None
    check_strategy(
        recipe.trainer,
        pretrains=False,
        has_interaction=dense is not None and dense.interaction is not None,
        has_contrast_head=dense is not None and dense.contrast_head is not None,
        refreshes=recipe.refresh is not None,
        batch_sizes=recipe.data.batch_sizes(recipe.trainer.batch_size),
    )


def _begin(recipe: Recipe, output: Path) -> tuple[RunFolder, Recipe, TextModel, Prepared]:
    """Check everything and make the run folder."""
    refuse_existing(output)
    began = time.perf_counter()
    torch.manual_seed(recipe.trainer.seed)
    model = build_model(recipe.model, recipe.trainer.accelerator)
    refuse_query_model(model, recipe)
    asked, recipe = recipe, with_machine(with_contract(recipe, model), model)
    prepared = prepare(recipe, model.tokenization)
    recipe = with_automatic(recipe, model, prepared)
    run = create_run(output, recipe, [source.report for source in prepared.sources])
    for sentence in prepared.held_out:
        console.print(sentence)
    add_seconds(run, "data", time.perf_counter() - began)
    note_begin(run, prepared, filled_keys(asked, recipe))
    return run, recipe, model, prepared


@owns("path")
def resume(path: Path, overrides: Sequence[str] = ()) -> RunFolder:
    """Continue a run from its newest checkpoint, exactly as if it had never stopped.

    ``overrides`` change how it is executed: ``trainer.devices=4``.
    """
    check_overrides(path, overrides)
    run, recipe = open_run(path, overrides)
    _check_strategy(recipe)
    again: Any = resume_pretraining if isinstance(recipe, PretrainRecipe) else _resume
    with going_on(how_to_go_on(path)):
        return go_on(run, recipe.trainer, lambda: again(run, recipe), overrides)


def _resume(run: RunFolder, recipe: Recipe) -> RunFolder:
    start = found_start(run, recipe.trainer)
    if not start.is_over:
        forget_end(run)
    torch.manual_seed(recipe.trainer.seed)
    model = build_model(recipe.model, recipe.trainer.accelerator)
    with first_rank_first():
        prepared = prepare(recipe, model.tokenization)
    _refuse_other_data(run, prepared)
    return _run(run, recipe, model, prepared, start)


def _refuse_other_data(run: RunFolder, prepared: Prepared) -> None:
    """Refuse to continue on rows or a task that changed: it would not be the same run."""
    refuse_other_data(run, [source.report.fingerprint for source in prepared.sources])
    if run.before.is_file() and prepared.evaluation is not None:
        measured = load_result(run.before).data.fingerprint
        if measured != prepared.evaluation.fingerprint:
            cure = "Restore them or start a new run"
            raise UserError(run.path, "was measured on other data before", cure=cure)


def _run(
    run: RunFolder, recipe: Recipe, model: TextModel, prepared: Prepared, start: Start
) -> RunFolder:
    task, asked = prepared.evaluation, recipe.evaluation
    with first_rank_first():
        keep_document_model(run, recipe, model)
    if start.checkpoint is None:
        start_sparse(recipe, model, prepared.sources)
    refresh = recipe.refresh
    mined = None if refresh is None else load_mining_task(refresh.path, refresh.split)
    if task is not None and asked is not None and not run.before.is_file():
        assert isinstance(model, TextEncoder)
        on_first_rank(lambda: measure_before(run, model, task, asked, cache_of(recipe.data)))
    torch.manual_seed(recipe.trainer.seed)  # whether "before" was measured must not change the run
    with timed(run, "training"):
        _fit(run, recipe, model, prepared, start, mined)
    on_first_rank(lambda: _finish(run, recipe, model, prepared))
    return run


def _finish(run: RunFolder, recipe: Recipe, model: TextModel, prepared: Prepared) -> None:
    """Measure the trained model and export it."""
    task, asked = prepared.evaluation, recipe.evaluation
    trained = load_trained(run, recipe)
    trained.contract = model.contract  # documents may have another model
    settle(run, recipe, trained, prepared.validation)
    trained.contract = trained_contract(recipe, model, read_summary(run))
    note_movements(run, recipe, trained)
    if task is not None and asked is not None:
        assert isinstance(trained, TextEncoder)
        with timed(run, "after"):
            measure_after(run, trained, task, asked, cache_of(recipe.data), prepared.texts)
    card = render_card(run, recipe, trained.contract)
    with timed(run, "export"):
        write_model(trained, run.model, card=card, overwrite=True)


def _fit(
    run: RunFolder,
    recipe: Recipe,
    model: TextModel,
    prepared: Prepared,
    start: Start,
    mined: MiningTask | None,
) -> None:
    """Run the steps from ``start`` to the end; ``mined`` is what a refresh mines."""
    sources = prepared.sources
    config, sizes = recipe.trainer, [len(source) for source in sources]
    num_steps = config.num_steps(rows_of_steps(recipe, sizes))
    if start.step >= num_steps or start.is_over:
        note_end(run, start, num_steps)
        return
    mixture, builder = plan_batches(recipe, sources, num_steps, config.seed)
    cut = own_cut(config)
    first = builder(cut.part(mixture.draw(start.step), 0))
    plan = plan_retrieval(config, model, first)
    config = announce(config, plan)
    callbacks = validating(run, recipe, prepared.validation, model.contract)
    guide = frozen = None
    with first_rank_first():
        if recipe.guide is not None:
            guide = encode_guide(
                recipe.guide, recipe.data.sources, cache_of(recipe.data),
                [one.read_sides for one in recipe.objectives],
            )  # fmt: skip
        if recipe.frozen_documents is not None:
            frozen = encode_documents(run, recipe, recipe.frozen_documents)
    module = RetrievalModule(
        model, recipe.objectives, config, num_steps, guide, frozen, mixture.batch_sizes, recipe.tasks
    )  # fmt: skip
    stream = BatchStream(mixture, builder, start.step, num_steps, cut)
    if mined is not None:
        late = _refreshed(run, recipe, mined, model, (mixture, builder), num_steps)
        stream = LateStream(mixture, late, start.step, num_steps)
    console.print(f"Training {num_steps - start.step:,} steps of {config.batch_size} queries")
    with within(plan):
        end = fit(module, stream, config, start=start, places=run.places, callbacks=callbacks)
    note_end(run, end, num_steps)
    tell_cut(model)


def rows_of_steps(recipe: Recipe, sizes: Sequence[int]) -> int:
    """Return the rows of all sources, counted in steps of ``trainer.batch_size``: steps may be of other sizes."""
    batch_sizes = recipe.data.batch_sizes(recipe.trainer.batch_size)
    steps = sum(size / batch for size, batch in zip(sizes, batch_sizes, strict=True))
    return round(steps * recipe.trainer.batch_size)


def plan_batches(
    recipe: Recipe, sources: Sequence[TokenizedSource], num_steps: int, seed: int
) -> tuple[Mixture, BatchBuilder]:
    """Return which rows train at which step, and what makes a batch of them."""
    sizes, configs = [len(source) for source in sources], recipe.data.sources[: len(sources)]
    batch_sizes = recipe.data.batch_sizes(recipe.trainer.batch_size)[: len(sources)]
    full = [size / batch for size, batch in zip(sizes, batch_sizes, strict=True)]
    mixture = Mixture(
        sizes,
        mixture_weights(full, [one.weight for one in configs], recipe.data.mixing_exponent),
        batch_size=batch_sizes,
        num_steps=num_steps,
        seed=seed,
        consecutive=[one.order == "consecutive" for one in configs],
        keys=[source.shares for source in sources],
    )
    return mixture, BatchBuilder.of(recipe.data, sources, recipe.trainer.seed)


def _refreshed(
    run: RunFolder,
    recipe: Recipe,
    task: MiningTask,
    model: TextModel,
    first: tuple[Mixture, BatchBuilder],
    num_steps: int,
) -> RefreshedBatches:
    """Return the batches of a run that mines for itself."""
    cache = cache_of(recipe.data)

    def tokenize(rows: Path) -> TokenizedSource:
        source = open_source(SourceConfig(path=str(rows)), cache)
        return tokenize_source(source, model.tokenization, cache)

    def plan(source: TokenizedSource, version: int) -> tuple[Mixture, BatchBuilder]:
        check_batch_size([source], [recipe.trainer.batch_size])
        return plan_batches(recipe, [source], num_steps, recipe.trainer.seed + version)

    assert recipe.refresh is not None
    assert isinstance(model, TextEncoder)
    return RefreshedBatches(
        recipe.refresh, model, task, run.path / "negatives", first, plan=plan, tokenize=tokenize
    )
