"""Several stages in one recipe file: train, rotate, mine, score and evaluate, each resumable, one after the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from embedtrain.data.examples import SourceConfig
from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, refuse_existing, write_file
from embedtrain.locks import owns
from embedtrain.mining.settings import MiningConfig
from embedtrain.precision import Precision
from embedtrain.progress import console
from embedtrain.recipe.keys import known_keys
from embedtrain.recipe.mistakes import describe_mistake
from embedtrain.recipe.reading import read_file, set_stage_keys
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.section import Count, Section
from embedtrain.stopping import going_on
from embedtrain.training.fitting import how_to_go_on
from embedtrain.training.ranks.processes import is_rank
from embedtrain.workflows.evaluate.fused import evaluate_fused
from embedtrain.workflows.evaluate.stage import EvaluateStage
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks
from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages
from embedtrain.workflows.mine import mine
from embedtrain.workflows.rotate import rotate
from embedtrain.workflows.score import score
from embedtrain.workflows.tokenizer import TokenizerKind, train_tokenizer
from embedtrain.workflows.train import resume, train

REFERENCE = "stage:"
RECIPE = "pipeline.yaml"


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


class RotateStage(Section):
    """As ``embedtrain rotate``; its folder is the model: ``stage:NAME``."""

    model: str
    """``stage:NAME/model``, a folder or a Hub id."""
    data: str
    """Training rows, as ``data.sources`` reads them."""
    split: str = "train"
    limit: Count | None = None


class TokenizerStage(Section):
    """As ``embedtrain tokenizer``; its folder is the tokenizer: ``stage:NAME``."""

    sources: tuple[CorpusConfig, ...] = Field(min_length=1)
    kind: TokenizerKind = "bpe"
    vocabulary_size: Count = 30_000
    lowercase: bool = True


class Stage(Section):
    """One step of the work: ``tokenizer``, ``train``, ``rotate``, ``mine``, ``score`` or ``evaluate``, and only one."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Its folder inside the output, and what ``stage:NAME/...`` of later stages means."""
    tokenizer: TokenizerStage | None = None
    train: dict[str, Any] | None = None
    """A whole recipe without its description; one of pre-training as well."""
    rotate: RotateStage | None = None
    mine: MineStage | None = None
    score: ScoreStage | None = None
    evaluate: EvaluateStage | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> "Stage":
        parts = self.model_dump(exclude={"name"}, exclude_none=True)
        if len(parts) != 1:
            raise ValueError(
                "give exactly one of tokenizer, train, rotate, mine, score and evaluate"
            )
        return self


class Pipeline(Section):
    """A recipe of several stages."""

    description: str
    """One line for `embedtrain recipes`: what it is for."""
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _references_point_back(self) -> "Pipeline":
        known: set[str] = set()
        for stage in self.stages:
            for reference in _references(stage.model_dump(exclude_none=True)):
                if reference not in known:
                    raise ValueError(
                        f"stage {stage.name} refers to {reference!r}, no earlier stage"
                    )
            if stage.name in known:
                raise ValueError(f"two stages are named {stage.name!r}")
            known.add(stage.name)
        return self


def load_pipeline(path: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline; ``NAME.key.sub=value`` overrides a key of a stage.

    Raises:
        UserError: At the first mistake, in any stage.
    """
    content, root = read_file(path)
    set_stage_keys(content, overrides)
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        details = error.errors()[0]
        known = known_keys("Pipeline", details["loc"])
        raise describe_mistake(details, content, known, place=str(path), root=root) from error


@owns("output")
def run_pipeline(pipeline: Pipeline, output: Path) -> Path:
    """Run all stages; started again on the same folder, it goes on where it was.

    Every stage is checked before the first one runs.

    Raises:
        UserError: If a stage is not usable, or the folder holds another pipeline.
        Interrupted: If a signal stopped it.
    """
    if is_rank():
        raise UserError(
            "torchrun",
            "cannot run a recipe of several stages, whose stages start ranks themselves",
            cure="Run it without torchrun and set trainer.devices of its stages",
        )
    text = yaml.safe_dump(pipeline.model_dump(mode="json", exclude_none=True), sort_keys=False)
    mark = output / RECIPE
    if mark.is_file() and mark.read_text(encoding="utf-8") != text:
        raise UserError(
            output, "holds another pipeline", cure="Choose another --output or remove the folder"
        )
    if not mark.is_file():
        refuse_existing(output)
        with appearing_folder(output) as building:
            write_file(building / RECIPE, text)
    recipes = output / "recipes"
    for stage in pipeline.stages:
        if stage.train is not None:
            content = {"description": f"{pipeline.description} ({stage.name})"} | stage.train
            written = yaml.safe_dump(_resolve(content, output), sort_keys=False)
            write_file(recipes / f"{stage.name}.yaml", written)
            load_recipe(recipes / f"{stage.name}.yaml")
    for number, stage in enumerate(pipeline.stages, 1):
        console.print(f"Stage {number} of {len(pipeline.stages)}: {stage.name}")
        with going_on(how_to_go_on(output)):
            _run_stage(stage, output)
    return output


def resume_pipeline(output: Path) -> Path:
    """Go on with a pipeline that was stopped."""
    return run_pipeline(load_pipeline(output / RECIPE), output)


def _run_stage(stage: Stage, output: Path) -> None:
    folder = output / stage.name

    def asked(part: Section) -> Any:  # noqa: ANN401 - the section again
        return type(part).model_validate(_resolve(part.model_dump(), output))

    if stage.tokenizer is not None and not folder.is_dir():
        made = stage.tokenizer
        settings = made.model_dump(exclude={"sources"})
        train_tokenizer(made.sources, folder, **settings)
    if stage.train is not None:
        _train(output / "recipes" / f"{stage.name}.yaml", folder)
    if stage.rotate is not None and not folder.is_dir():
        turn = asked(stage.rotate)
        rotate(turn.model, turn.data, folder, split=turn.split, limit=turn.limit)
    if stage.mine is not None:
        work = asked(stage.mine)
        mine(work.model, work.data, folder, work.settings, split=work.split)
    if stage.score is not None and not (folder / "scored.jsonl").is_file():
        teacher = asked(stage.score)
        how = teacher.model_dump(include={"kind", "batch_size", "precision"})
        how["language"] = teacher.language
        score(teacher.teacher, SourceConfig(path=teacher.data), folder / "scored.jsonl", **how)
    if stage.evaluate is not None and not (folder / "scores.json").is_file():
        test = asked(stage.evaluate)
        baseline = None if test.baseline is None else Path(test.baseline)
        wish = Wish(
            [test.path], test.split, "retrieval", baseline=baseline, precision=test.precision
        )
        place = folder / "scores.json"
        fusing = test.fusing()
        if test.rerank is not None:
            second = Reranking(test.rerank, top=test.top)
            evaluate_two_stages(test.model, wish, second, place, fusing)
        elif test.fused_with:
            evaluate_fused(test.model, wish, fusing, place)
        else:
            evaluate_tasks(test.model, wish, place)


def _train(recipe: Path, folder: Path) -> None:
    """Begin a run, go on with it, or leave it where its model is written, which is what it does last."""
    if (folder / "model").is_dir():
        return
    if (folder / "recipe.yaml").is_file():
        resume(folder)
    else:
        train(load_recipe(recipe), folder)


def _resolve(value: Any, output: Path) -> Any:  # noqa: ANN401 - any part of a YAML file
    """Replace ``stage:NAME/...`` by the path of what that stage wrote."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        return str(output / value.removeprefix(REFERENCE))
    if isinstance(value, Mapping):
        return {key: _resolve(part, output) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(part, output) for part in value]
    return value


def _references(value: object) -> list[str]:
    """Return the names of the stages that a part of a recipe refers to."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        return [value.removeprefix(REFERENCE).split("/")[0]]
    if isinstance(value, Mapping):
        return [name for part in value.values() for name in _references(part)]
    if isinstance(value, list | tuple):
        return [name for part in value for name in _references(part)]
    return []
