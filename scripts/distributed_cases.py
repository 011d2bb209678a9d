"""Tiny runs on several gloo processes, and what must be equal among them: used by check_distributed.py and tests.

Longer than 300 lines, as each kind of training has its case.
"""

import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp
import yaml
from torch import Tensor

from embedtrain.models.build import build_encoder
from embedtrain.recipe.retrieval import AnyRecipe, Recipe, load_recipe
from embedtrain.recipe.run_folder import build_pretrained
from embedtrain.training.datamodule import BatchStream
from embedtrain.training.fitting import Places, Start, fit, own_cut
from embedtrain.training.module import RetrievalModule
from embedtrain.training.pretraining import PretrainModule
from embedtrain.training.ranks import gather as distributed
from embedtrain.training.ranks.processes import joined
from embedtrain.training.settings import TrainerConfig
from embedtrain.workflows.prepare import prepare
from embedtrain.workflows.pretrain import prepare_text
from embedtrain.workflows.train import plan_batches

T = TypeVar("T")

STEPS = 3


@dataclass(frozen=True)
class Case:
    """One way to train a tiny model for three steps."""

    model: str = "dense"
    strategy: str = "ddp"
    ranks: int = 2
    chunked: bool = False
    accumulate: int = 1
    uneven: bool = False
    double: bool = False
    clip: float = 0.0
    objective: str = ""
    data: str = ""
    """Further settings of the data, as YAML."""
    trainer: str = ""
    """Further settings of the trainer, as YAML."""

    @property
    def alone(self) -> "Case":
        """The same training in one plain process."""
        return replace(self, strategy="single", ranks=1, trainer="")

    @property
    def scheme(self) -> str:
        """How the batch is run, in words."""
        words = ["chunked" if self.chunked else "whole", f"accumulate {self.accumulate}"]
        return ", ".join([*words, "uneven" if self.uneven else "even"])


@dataclass(frozen=True)
class Head:
    """What a dense model has besides, and the objective that trains it."""

    model: dict[str, Any]
    objective: dict[str, Any]
    rows: str = "scored"


DOT = {"similarity": "dot", "learn_temperature": None}
IN_CONTEXT = {"spans": "mean", "in_context": True, "document": {"length": 24}}
OF_DOCUMENTS = {
    "name": "sum",
    "objectives": [{"name": "info_nce", "negatives": one} for one in ("own", "others")],
}
HEADS = {
    "lora": Head({"lora": {"rank": 4, "alpha": 8}}, {"name": "info_nce"}),
    "interaction": Head(
        {
            "interaction": {"hidden": 16},
            "attention_pooling": {"num_heads": 4},
            "learn_temperature": None,
        },
        # Two documents correlate by +-1; features weigh enough to be seen.
        {"name": "d2llm", "temperature": 1.0, "rank_weight": 0.0, "feature_weight": 1.0},
    ),
    "in_context": Head(IN_CONTEXT, OF_DOCUMENTS, "documents"),
    "situated": Head(
        {**IN_CONTEXT, "situated": {"base": "bert", "weight": 0.5}}, OF_DOCUMENTS, "documents"
    ),
    "late_chunks": Head(
        {"late_chunks": 6, "document": {"length": 16}}, {"name": "info_nce"}, "pairs"
    ),
    "nugget": Head(
        {
            "kind": "late_interaction",
            "token_scorer": {"keep_ratio": 0.5, "layer": 1, "noise": 0.0},
            "learn_temperature": 1.0,
        },
        {"name": "info_nce"},
        "pairs",
    ),
    "pair_classes": Head({"pair_classes": 3}, {"name": "pair_classification"}),
    "query_network": Head(
        {"query_network": {"num_layers": 1}, "projection": 8, **DOT}, {"name": "info_nce"}
    ),
    "query_codes": Head({"query_codes": {"num_codes": 3}, **DOT}, {"name": "info_nce"}),
}
"""Models with parts whose weights are frozen, or that the loss reads outside of the encoder."""


def _chunk_tokens(case: Case) -> int:
    return (90 if case.model == "masked" else 40) if case.chunked else 100_000


def recipe_of(case: Case, toys: Path) -> AnyRecipe:
    """Return the recipe of a case."""
    batch = (7 if case.uneven else 8) * case.accumulate
    trainer = {
        "steps": STEPS,
        "batch_size": batch,
        "chunk_tokens": _chunk_tokens(case),
        "rematerialize": case.chunked,
        # So that three steps amplify rounding little: at ten times the rate one float32 process is itself 1e-5
        # away from float64 where the best of nearly equal tokens decides. Moments show a wrong factor anyway.
        "learning_rate": 0.001,
        "warmup_ratio": 0.0,
        "gradient_clip": case.clip,
        "accumulate": case.accumulate,
        "checkpoint_every": STEPS,
        "precision": "fp32",  # what ranks must agree on is judged in float32, or in float64
        "accelerator": "cpu",
        "strategy": case.strategy,
        "devices": case.ranks,
    } | (yaml.safe_load(case.trainer or "{}"))
    content: dict[str, Any] = {"description": "tiny", "trainer": trainer}
    content |= _pretraining(case, toys) if case.model == "masked" else _retrieval(case, toys)
    path = toys / f"recipe-{os.getpid()}.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(path)
    path.unlink()
    return recipe


def _pretraining(case: Case, toys: Path) -> dict[str, Any]:
    size = {"num_layers": 2, "width": 32, "num_heads": 2, "max_length": 64, "dropout": 0.0}
    sources = [{"path": str(toys / "corpus.jsonl")}]
    return {
        "data": {"sources": sources, "length": 24, "min_tokens": 2, "cache": str(toys / "cache")},
        "model": {
            "kind": "masked_autoencoder",
            "backbone": str(toys / "bert"),
            "architecture": size,
        },
        "objective": yaml.safe_load(case.objective or "{name: retromae}"),
    }


def _retrieval(case: Case, toys: Path) -> dict[str, Any]:
    head = HEADS.get(case.model)
    sources = [{"path": str(toys / ("pairs.jsonl" if head is None else f"{head.rows}.jsonl"))}]
    content: dict[str, Any] = {
        "data": {"sources": sources, "cache": str(toys / "cache")}
        | yaml.safe_load(case.data or "{}"),
        # MaxSim adds up the similarities of a dozen tokens, so its temperature is usually 1.
        "model": {
            "kind": "dense" if head else case.model,
            "backbone": str(toys / "bert"),
            "learn_temperature": 1.0 if case.model == "late_interaction" else 0.3,
        },
    }
    if head is not None:
        content["model"] |= head.model
        if "situated" in head.model:
            base = {"base": str(toys / head.model["situated"]["base"])}
            content["model"]["situated"] = head.model["situated"] | base
        content["objective"] = head.objective
    if case.objective:
        content["objective"] = yaml.safe_load(case.objective)
    return content


def module_of(
    case: Case, recipe: AnyRecipe
) -> tuple[pl.LightningModule, Callable[[int], BatchStream[Any]]]:
    """Return what is trained, and the stream of batches from a step on."""
    config: TrainerConfig = recipe.trainer
    torch.manual_seed(0)
    if isinstance(recipe, Recipe):
        model = build_encoder(recipe.model, "cpu")
        sources = prepare(recipe, model.tokenization).sources
        mixture, builder = plan_batches(recipe, sources, STEPS, 0)
        module = RetrievalModule(model, recipe.objectives, config, STEPS)
    else:
        model = build_pretrained(recipe)
        data = prepare_text(recipe, model)
        mixture, builder = data.mixture, data.builder
        module = PretrainModule(model, recipe.objective, config, STEPS)
    if case.double:
        module.double()
    return module, lambda start: BatchStream(mixture, builder, start, STEPS, own_cut(config))


class Visible(pl.Callback):
    """Makes errors of scale visible: with a large epsilon AdamW's steps are proportional to the gradient."""

    def on_train_start(self, trainer: pl.Trainer, _: pl.LightningModule) -> None:
        """Raise the epsilon."""
        for group in trainer.optimizers[0].param_groups:
            group["eps"] = 0.1


class Traffic:
    """Counts the messages of the loss and their bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self._originals = {
            name: getattr(distributed, name) for name in ("_all_gather", "_reduce_scatter")
        }

    def __enter__(self) -> "Traffic":
        for name, original in self._originals.items():

            def counted(
                out: Tensor,
                given: Tensor,
                name: str = name,
                original: Callable[[Tensor, Tensor], object] = original,
            ) -> None:
                whole = out if name == "_all_gather" else given
                self.calls.append((name.strip("_"), whole.numel() * whole.element_size()))
                original(out, given)

            setattr(distributed, name, counted)
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self._originals.items():
            setattr(distributed, name, original)


def train_case(
    case: Case, toys: Path, start: Start | None = None, steps: int = STEPS
) -> dict[str, Any]:
    """Train for three steps and return the checkpoint, the losses and the traffic; collective."""
    recipe = recipe_of(case, toys)
    module, stream = module_of(case, recipe)
    folder = Path(tempfile.mkdtemp(dir=toys)) if int(os.environ.get("RANK", "0")) == 0 else toys
    places = Places(folder, folder / "metrics.csv", folder)
    config = recipe.trainer.model_copy(update={"log_every": 1})
    module.config = config
    batches = stream(0 if start is None else start.step)
    batches.stop = steps
    with Traffic() as traffic:
        fit(module, batches, config, start=start or Start(), places=places, callbacks=[Visible()])
    if int(os.environ.get("RANK", "0")):
        return {}
    path = folder / f"step-{steps:08d}.ckpt"
    state = torch.load(path, weights_only=True)
    losses = [
        float(line.split(",")[1]) for line in (folder / "metrics.csv").read_text().splitlines()[1:]
    ]
    return {"path": path, "state": state, "traffic": traffic.calls, "losses": losses}


def relative_error(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return the larger error of all weights and of all first moments, relative to their size.

    A moment is proportional to the gradient, so that a factor that AdamW hides in the weights shows.
    """
    worst = 0.0
    ours, theirs = (result["state"]["state_dict"] for result in (found, expected))
    assert ours.keys() == theirs.keys()
    pairs = [(ours[name], theirs[name]) for name in theirs]
    states = [result["state"]["optimizer_states"][0]["state"] for result in (found, expected)]
    assert states[0].keys() == states[1].keys()
    moments = [(states[0][n]["exp_avg"], states[1][n]["exp_avg"]) for n in states[1]]
    for group in (pairs, moments):
        error = sum(float((a.double() - b.double()).square().sum()) for a, b in group)
        norm = sum(float(b.double().square().sum()) for _, b in group)
        worst = max(worst, (error / norm) ** 0.5)
    return worst


def on_ranks(ranks: int, work: Callable[..., T], *arguments: object, patience: float = 120) -> T:
    """Run ``work`` in forked processes and return what the first of them returns."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.pt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = mp.start_processes(
            _child, (ranks, port, out, work, arguments), ranks, start_method="fork", join=False
        )
        deadline = time.monotonic() + patience
        while not started.join(timeout=0.1):
            if time.monotonic() > deadline:
                for process in started.processes:
                    process.kill()
                raise TimeoutError("the ranks wait for each other")
        return torch.load(out, weights_only=False)


def _child(
    rank: int, ranks: int, port: int, out: Path, work: Callable[..., Any], arguments: tuple
) -> None:
    torch.set_num_threads(1)  # a forked child must not enter an OpenMP region with more
    warnings.simplefilter("ignore")
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    numbers |= {"LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in numbers.items()} | {"DS_ACCELERATOR": "cpu"}
    with joined("cpu"):
        result = work(*arguments)
        if rank == 0:
            torch.save(result, out)
