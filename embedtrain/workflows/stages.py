"""The kinds of stages a pipeline may have: what stands in the file, and what runs.

A new kind is a section, a function, a key of :class:`Stage` and an entry of :data:`KINDS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, NonNegativeFloat, model_validator

from embedtrain.data.examples import SourceConfig
from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.mining.judgement.settings import JudgeConfig
from embedtrain.mining.settings import MiningConfig
from embedtrain.models.edits.merge import Method
from embedtrain.precision import Precision
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.section import Count, Section
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.workflows.divide import DivideStage, divide
from embedtrain.workflows.evaluate.fused import evaluate_fused
from embedtrain.workflows.evaluate.stage import EvaluateStage
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages
from embedtrain.workflows.gate import VERDICT, GateStage, gate
from embedtrain.workflows.hold_out import HoldOutStage, hold_out_rows
from embedtrain.workflows.judge import judge
from embedtrain.workflows.merge import MergeWish, merge
from embedtrain.workflows.mine import mine
from embedtrain.workflows.require import FOUND, RequireStage, require
from embedtrain.workflows.rotate import rotate
from embedtrain.workflows.score import score
from embedtrain.workflows.select.select import SelectWish, Toward, select
from embedtrain.workflows.synthesize import synthesize
from embedtrain.workflows.tokenizer import TokenizerKind, train_tokenizer
from embedtrain.workflows.train import resume, train

RECIPES = "recipes"
"""Folder of the output that holds the recipe of every stage that trains."""


class SynthStage(Section):
    """As ``embedtrain synth``; its folder is a BEIR folder with ``train.jsonl``."""

    corpus: str
    """A folder of documents, or a file."""
    llm: str | None = None
    """A language model that writes: an address, a folder, a Hub id or a ``.gguf`` file; null: rules write."""
    like: str | None = None
    """A file of your own queries, which it imitates."""
    settings: SynthesisConfig = SynthesisConfig()
    """As the ``key=value`` words of the command."""


class MineStage(Section):
    """As ``embedtrain mine``; leaves ``train.jsonl`` behind."""

    model: str
    """The teacher: ``stage:NAME/model``, a folder or a Hub id."""
    data: str
    """A BEIR folder, ``python_docs``, or a file of training rows."""
    split: str = "train"
    settings: MiningConfig = MiningConfig()
    """As the ``key=value`` words of the command."""


class ScoreStage(Section):
    """As ``embedtrain score``; leaves ``scored.jsonl`` behind."""

    teacher: str
    """A cross-encoder, an encoder or a language model: a folder or a Hub id."""
    data: str
    """Training rows, such as ``stage:NAME/train.jsonl``."""
    kind: ScorerKind | None = None
    batch_size: Count = 32
    precision: Precision = "auto"
    """What the teacher computes in: fp32, bf16 or fp16; auto is bf16 on a GPU that has it, fp32 on a CPU."""
    language: LanguageSettings = LanguageSettings()
    """How a language model is asked."""
    first: str | None = None
    """An encoder whose scores are mixed in, such as the retriever that is to learn: ``stage:NAME/model``."""
    blend: float | None = Field(default=None, gt=0, lt=1)
    """With ``first``: share of the teacher's scores in the mixture; null is 0.5."""

    @model_validator(mode="after")
    def _mixes_with_something(self) -> "ScoreStage":
        if self.first is None and self.blend is not None:
            raise ValueError("blend needs first, whose scores are mixed in")
        return self


class JudgeStage(Section):
    """As ``embedtrain judge``; leaves ``train.jsonl`` behind."""

    mined: str
    """What a mining wrote, best with ``num_rejected: 20``: ``stage:NAME`` or a folder."""
    settings: JudgeConfig
    """As the ``key=value`` words of the command; ``judge.model`` is the judge."""


class RotateStage(Section):
    """As ``embedtrain rotate``; its folder is the model: ``stage:NAME``."""

    model: str
    """``stage:NAME/model``, a folder or a Hub id."""
    data: str
    """Training rows, as ``data.sources`` reads them."""
    split: str = "train"
    limit: Count | None = None


class SelectStage(Section):
    """As ``embedtrain select``; its folder is the model: ``stage:NAME``."""

    runs: tuple[str, ...] = Field(min_length=1)
    """Folders of finished runs, such as ``stage:NAME``."""
    base: str | None = None
    """What they started from; null takes the first run's backbone."""
    data: str | None = None
    """A BEIR folder that decides; null takes the first run's validation."""
    split: str = "dev"
    guard: tuple[str, ...] = ()
    """Tasks that must not lose more than a point."""
    guard_split: str | None = None
    errors: NonNegativeFloat = 1.0
    """Standard errors that weights nearer to an end may lack; 0 takes the best."""
    toward: Toward = "start"
    """Which end: the start, where less is forgotten, or the end of training, where few queries choose."""


class MergeStage(Section):
    """As ``embedtrain merge`` without a grid; its folder is the model: ``stage:NAME``."""

    models: tuple[str, ...] = Field(min_length=1)
    """``stage:NAME/model``, folders or Hub ids."""
    method: Method = "linear"
    weights: tuple[float, ...] = ()
    """One per model; empty weighs them alike (for task vectors: 1 each)."""
    base: str | None = None
    """What all were trained from, for methods that need it."""

    @model_validator(mode="after")
    def _goes_together(self) -> "MergeStage":
        """Refuse here what the merge would refuse when the stages before it have trained."""
        count, method = len(self.models), self.method
        if method in ("task_vectors", "delta"):
            if self.base is None:
                raise ValueError(f"base is missing, which {method} measures changes from")
        elif count < 2 or (method in ("slerp", "concatenate") and count > 2):
            raise ValueError(f"{method} goes between two models{' or more' * (method == 'linear')}")
        if self.weights and len(self.weights) != count:
            raise ValueError(f"weights must be one for each of the {count} models")
        return self


class TokenizerStage(Section):
    """As ``embedtrain tokenizer``; its folder is the tokenizer: ``stage:NAME``."""

    sources: tuple[CorpusConfig, ...] = Field(min_length=1)
    kind: TokenizerKind = "bpe"
    vocabulary_size: Count = 30_000
    lowercase: bool = True


def _run_tokenizer(work: TokenizerStage, folder: Path, _: Path) -> None:
    train_tokenizer(work.sources, folder, **work.model_dump(exclude={"sources"}))


def _run_train(_: dict[str, Any], folder: Path, output: Path) -> None:
    """Begin a run, or go on with it; its recipe was written before the first stage ran."""
    if (folder / "recipe.yaml").is_file():
        resume(folder)
    else:
        train(load_recipe(output / RECIPES / f"{folder.name}.yaml"), folder)


def _run_rotate(work: RotateStage, folder: Path, _: Path) -> None:
    rotate(work.model, work.data, folder, split=work.split, limit=work.limit)


def _run_synth(work: SynthStage, folder: Path, _: Path) -> None:
    like = None if work.like is None else Path(work.like)
    synthesize(work.corpus, folder, work.settings, llm=work.llm, like=like)


def _run_select(work: SelectStage, folder: Path, _: Path) -> None:
    runs = [Path(run) for run in work.runs]
    select(SelectWish(**{**work.model_dump(), "runs": runs}), folder)


def _run_merge(work: MergeStage, folder: Path, _: Path) -> None:
    merge(MergeWish(work.models, work.method, work.weights, work.base), folder)


def _run_mine(work: MineStage, folder: Path, _: Path) -> None:
    mine(work.model, work.data, folder, work.settings, split=work.split)


def _run_judge(work: JudgeStage, folder: Path, _: Path) -> None:
    judge(Path(work.mined), folder, work.settings)


def _run_score(work: ScoreStage, folder: Path, _: Path) -> None:
    how = work.model_dump(include={"kind", "batch_size", "precision", "first"})
    how |= {"language": work.language, "share": work.blend}
    score(work.teacher, SourceConfig(path=work.data), folder / "scored.jsonl", **how)


def _run_evaluate(work: EvaluateStage, folder: Path, _: Path) -> None:
    baseline = None if work.baseline is None else Path(work.baseline)
    wish = Wish([work.path], work.split, "retrieval", baseline=baseline, precision=work.precision)
    place = folder / "scores.json"
    fusing = work.fusing()
    if work.rerank is not None:
        second = Reranking(work.rerank, top=work.top, blend=work.blend)
        evaluate_two_stages(work.model, wish, second, place, fusing)
    elif work.fused_with:
        evaluate_fused(work.model, wish, fusing, place)
    else:
        evaluate_tasks(work.model, wish, place)


def _run_hold_out(work: HoldOutStage, folder: Path, _: Path) -> None:
    hold_out_rows(work, folder)


def _run_divide(work: DivideStage, folder: Path, _: Path) -> None:
    divide(work, folder)


def _run_require(work: RequireStage, folder: Path, _: Path) -> None:
    require(work, folder)


def _run_gate(work: GateStage, folder: Path, _: Path) -> None:
    gate(work, folder)


class Kind(NamedTuple):
    """How a kind of stage runs."""

    run: Callable[[Any, Path, Path], None]
    """Called with what stands in the file (references are paths by then), the stage's folder and the pipeline's."""
    leaves: str | None
    """What it writes last, inside its folder: where that is there, the stage is done. Null: ``run`` sees for itself."""


KINDS = {
    "hold_out": Kind(_run_hold_out, "."),
    "divide": Kind(_run_divide, "."),
    "require": Kind(_run_require, FOUND),
    "tokenizer": Kind(_run_tokenizer, "."),
    "train": Kind(_run_train, "model"),
    "select": Kind(_run_select, "."),
    "merge": Kind(_run_merge, "."),
    "rotate": Kind(_run_rotate, "."),
    "synth": Kind(_run_synth, "report.json"),
    "mine": Kind(_run_mine, None),
    "judge": Kind(_run_judge, "report.json"),
    "score": Kind(_run_score, "scored.jsonl"),
    "evaluate": Kind(_run_evaluate, "scores.json"),
    "gate": Kind(_run_gate, VERDICT),
}


class Stage(Section):
    """One step of the work: its name and one of the other keys, which says what it does."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Its folder inside the output, and what ``stage:NAME/...`` of later stages means."""
    hold_out: HoldOutStage | None = None
    divide: DivideStage | None = None
    require: RequireStage | None = None
    tokenizer: TokenizerStage | None = None
    train: dict[str, Any] | None = None
    """A whole recipe without its description; one of pre-training as well."""
    select: SelectStage | None = None
    merge: MergeStage | None = None
    rotate: RotateStage | None = None
    synth: SynthStage | None = None
    mine: MineStage | None = None
    judge: JudgeStage | None = None
    score: ScoreStage | None = None
    evaluate: EvaluateStage | None = None
    gate: GateStage | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> "Stage":
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            *most, last = KINDS
            raise ValueError(f"give exactly one of {', '.join(most)} and {last}")
        return self

    @property
    def kind(self) -> str:
        """The one that is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)
