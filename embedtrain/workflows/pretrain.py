"""Workflow: a pre-training recipe becomes a run folder with an encoder that any later stage starts from."""

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from embedtrain.data.mixture import Draw, Mixture, mixture_weights
from embedtrain.data.pretraining.corpus import open_corpus
from embedtrain.data.pretraining.masked_batches import Frame, MaskedBatchBuilder, frame_of
from embedtrain.data.pretraining.spans import SpanSource, tokenize_corpus
from embedtrain.errors import UserError
from embedtrain.files import default_cache, refuse_existing
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.pretrain_types import MaskedBatch, PretrainOutputs
from embedtrain.progress import console, progress_bar
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.run_files import refuse_other_data
from embedtrain.recipe.run_folder import (
    RunFolder,
    build_pretrained,
    create_run,
    found_start,
)
from embedtrain.release.export import export_pretrained
from embedtrain.training.datamodule import BatchStream
from embedtrain.training.devices import Device
from embedtrain.training.fitting import Start, fit, own_cut
from embedtrain.training.planner import PROBE_TOKENS, Plan, announce, plan_pretraining, within
from embedtrain.training.pretraining import HeldOut, PretrainModule
from embedtrain.training.ranks.processes import first_rank_first, on_first_rank
from embedtrain.training.trainer import check_loggers
from embedtrain.workflows.prepare import with_machine

HELD_OUT_STEP = 2**31
"""The masks of held-out text are those of a step that no run reaches."""


@dataclass(frozen=True)
class PretrainData:
    """The text of a recipe, tokenised, and how its batches are drawn."""

    recipe: PretrainRecipe
    sources: list[SpanSource]
    frame: Frame

    @property
    def pairs(self) -> bool:
        """Whether a row is a document that gives two texts."""
        return self.recipe.objective.masking.pairs

    @property
    def sizes(self) -> list[int]:
        """Rows to train on of each source."""
        rows = [s.num_documents if self.pairs else len(s) for s in self.sources]
        return [rows[0] - self.num_held_out, *rows[1:]]

    @property
    def num_held_out(self) -> int:
        """Rows at the end of the first source that are not trained on."""
        validation = self.recipe.validation
        return 0 if validation is None else self._rows(validation.num_texts)

    @property
    def rows_per_step(self) -> int:
        """Rows of a batch."""
        return self._rows(self.recipe.trainer.batch_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        texts = sum(self.sizes) * (2 if self.pairs else 1)
        return self.recipe.trainer.num_steps(texts)

    @property
    def builder(self) -> MaskedBatchBuilder:
        """Makes the batch of a step's rows."""
        data = self.recipe.data
        return MaskedBatchBuilder(
            self.sources,
            self.recipe.objective.masking,
            self.frame,
            size=data.length - self.frame.num_special,
            pairs=data.pairs,
            seed=self.recipe.trainer.seed,
        )

    @property
    def mixture(self) -> Mixture:
        """Says which rows a step trains on."""
        weights = [source.weight for source in self.recipe.data.sources]
        return Mixture(
            self.sizes,
            mixture_weights(self.sizes, weights, self.recipe.data.mixing_exponent),
            batch_size=self.rows_per_step,
            num_steps=self.num_steps,
            seed=self.recipe.trainer.seed,
        )

    def held_out(self) -> list[MaskedBatch]:
        """Return the held-out texts in batches of the trained size, their masks always the same."""
        first = self.sizes[0]
        rows = torch.split(torch.arange(first, first + self.num_held_out), self.rows_per_step)
        return [
            self.builder(Draw(HELD_OUT_STEP + i, 0, part.numpy())) for i, part in enumerate(rows)
        ]

    def plan(self, model: MaskedAutoencoder, tokens: int, on: Device | None = None) -> Plan:
        """Plan the memory of a step in which one rank has so many tokens; here, or ``on`` another device."""
        probes = [self.few(max(1, wanted // self.recipe.data.length)) for wanted in PROBE_TOKENS]

        def loss(outputs: PretrainOutputs) -> Tensor:
            return self.recipe.objective(outputs).loss

        return plan_pretraining(self.recipe.trainer, model, loss, probes, tokens, on)

    def few(self, rows: int) -> MaskedBatch:
        """Return a batch of a few rows, at least two, to try something out."""
        rows = min(max(2, rows), self.rows_per_step)
        return self.builder(Draw(0, 0, torch.arange(rows).numpy()))

    def _rows(self, num_texts: int) -> int:
        return max(1, num_texts // 2) if self.pairs else num_texts


def begin_pretraining(
    recipe: PretrainRecipe, output: Path
) -> tuple[RunFolder, MaskedAutoencoder, PretrainData]:
    """Check everything and make the run folder.

    Raises:
        UserError: If the recipe, the text or the output folder is not usable.
    """
    refuse_existing(output)
    model = build_pretrained(recipe)
    recipe = with_machine(recipe, model)
    data = prepare_text(recipe, model)
    run = create_run(output, recipe, [source.report for source in data.sources])
    return run, model, data


def resume_pretraining(run: RunFolder, recipe: PretrainRecipe) -> RunFolder:
    """Go on from the newest checkpoint."""
    start = found_start(run, recipe.trainer)
    model = build_pretrained(recipe)
    with first_rank_first():
        data = prepare_text(recipe, model)
    refuse_other_data(run, [source.report.fingerprint for source in data.sources])
    return run_pretraining(run, model, data, start)


def prepare_text(recipe: PretrainRecipe, model: MaskedAutoencoder) -> PretrainData:
    """Open and tokenise all text that a recipe names, so that a mistake shows before any work starts.

    Raises:
        UserError: If text, tokenizer, batch size or a missing extra would stop the run later.
    """
    check_loggers(recipe.trainer)
    data = recipe.data
    cache = Path(data.cache).expanduser() if data.cache else default_cache()
    tokenizer = model.language.tokenizer
    # A decoder's own texts may begin without a token.
    first_token = not recipe.objective.computation.shifted
    size = len(model.language.weight)
    frame = frame_of(tokenizer, size, "model.backbone", first_token=first_token)
    size = data.length - frame.num_special
    if size < data.min_tokens:
        raise UserError(
            "data.length",
            f"leaves {size} tokens of a text, fewer than data.min_tokens ({data.min_tokens})",
            got=data.length,
            cure="Raise it or lower data.min_tokens",
        )
    sources = []
    for config in data.sources:
        corpus = open_corpus(config)
        with progress_bar(f"Tokenising {corpus.place}", None) as advance:
            sources.append(
                tokenize_corpus(
                    corpus,
                    tokenizer,
                    size=size,
                    mode=data.spans,
                    min_tokens=data.min_tokens,
                    cache=cache,
                    progress=advance,
                )
            )
    prepared = PretrainData(recipe, sources, frame)
    _check_sizes(prepared)
    return prepared


def _check_sizes(data: PretrainData) -> None:
    """Refuse a batch that no epoch could fill without repeating a row."""
    what = "documents of two spans" if data.pairs else "spans"
    for source, size in zip(data.sources, data.sizes, strict=True):
        if size < data.rows_per_step:
            raise UserError(
                "trainer.batch_size",
                f"needs {data.rows_per_step} {what}; {source.place} has {max(size, 0)} to train on",
                cure="Lower it, or hold out less",
            )


def run_pretraining(
    run: RunFolder, model: MaskedAutoencoder, data: PretrainData, start: Start
) -> RunFolder:
    """Train from ``start`` to the last step and export the encoder."""
    recipe = data.recipe
    torch.manual_seed(recipe.trainer.seed)
    if start.step < data.num_steps and not start.is_over:
        cut = own_cut(recipe.trainer)
        first = cut.part(data.mixture.draw(start.step), 0)
        tokens = int(data.builder(first).texts.lengths.sum())
        plan = data.plan(model, tokens)
        trainer = announce(recipe.trainer, plan)
        module = PretrainModule(model, recipe.objective, trainer, data.num_steps)
        callbacks: list[pl.Callback] = []
        if recipe.validation is not None:
            callbacks.append(HeldOut(recipe.validation.every_steps, data.held_out()))
        stream = BatchStream(data.mixture, data.builder, start.step, data.num_steps, cut)
        left = data.num_steps - start.step
        console.print(f"Pre-training {left:,} steps of {recipe.trainer.batch_size} texts")
        with within(plan):
            fit(module, stream, recipe.trainer, start=start, places=run.places, callbacks=callbacks)
    on_first_rank(lambda: export_pretrained(run, recipe, run.model, overwrite=True))
    return run
