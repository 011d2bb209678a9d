"""Several stages in one recipe file, each resumable, one after the other."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from embedtrain.errors import NothingLeftError, Refused, UserError
from embedtrain.files import (
    appearing_folder,
    read_json,
    refuse_existing,
    write_file,
    write_json,
)
from embedtrain.locks import owns
from embedtrain.progress import console
from embedtrain.recipe.keys import known_keys
from embedtrain.recipe.mistakes import describe_mistake
from embedtrain.recipe.reading import read_file, set_stage_keys
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.section import Section
from embedtrain.stopping import going_on
from embedtrain.training.fitting import how_to_go_on
from embedtrain.training.ranks.processes import is_rank
from embedtrain.workflows.gate import REFUSED
from embedtrain.workflows.stages import KINDS, RECIPES, Stage

REFERENCE = "stage:"
RECIPE = "pipeline.yaml"
SECONDS = "seconds.json"


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
    text = dump_pipeline(pipeline)
    mark = output / RECIPE
    if mark.is_file() and dump_pipeline(load_pipeline(mark)) != text:  # with today's defaults
        raise UserError(
            output, "holds another pipeline", cure="Choose another --output or remove the folder"
        )
    if not mark.is_file():
        refuse_existing(output)
        with appearing_folder(output) as building:
            write_file(building / RECIPE, text)
    recipes = output / RECIPES
    for stage in pipeline.stages:
        if stage.train is not None:
            content = {"description": f"{pipeline.description} ({stage.name})"} | stage.train
            written = yaml.safe_dump(_resolve(content, output), sort_keys=False)
            write_file(recipes / f"{stage.name}.yaml", written)
            load_recipe(recipes / f"{stage.name}.yaml")
    for number, stage in enumerate(pipeline.stages, 1):
        console.print(f"Stage {number} of {len(pipeline.stages)}: {stage.name}")
        with going_on(how_to_go_on(output)), _timed(stage.name, output), _noted(output):
            _run_stage(stage, output)
    return output


@contextmanager
def _noted(output: Path) -> Iterator[None]:
    """Write down why the work ends here and the start is kept, where that is so."""
    (output / REFUSED).unlink(missing_ok=True)
    try:
        yield
    except (Refused, NothingLeftError) as refused:
        reason = str(refused)
        if isinstance(refused, NothingLeftError):
            reason = f"The start is kept, nothing was trained: {reason}"
        write_json(output / REFUSED, {"ships": False, "decision": reason, "reasons": [reason]})
        raise


def dump_pipeline(pipeline: Pipeline) -> str:
    """Return the file's content that an output folder keeps."""
    whole, given = (
        pipeline.model_dump(mode="json", exclude_unset=unset) for unset in (False, True)
    )
    return yaml.safe_dump(_without_nulls(whole, given), sort_keys=False)


def _without_nulls(value: Any, given: Any) -> Any:  # noqa: ANN401 - any part of a YAML file
    """Leave out what is null but where the file says so: there it may stand against a default."""
    if isinstance(value, Mapping):
        said = given if isinstance(given, Mapping) else {}
        return {
            key: _without_nulls(part, said.get(key))
            for key, part in value.items()
            if part is not None or key in said
        }
    if isinstance(value, list):
        each = given if isinstance(given, list) else [None] * len(value)
        return [_without_nulls(*pair) for pair in zip(value, each, strict=True)]
    return value


def read_seconds(output: Path) -> dict[str, float]:
    """Return how long each stage took, all tries together."""
    found: dict[str, float] = read_json(output / SECONDS, optional=True)
    return found


def find_refusal(output: Path) -> str | None:
    """Return why a finished pipeline keeps the start of its model; None where it ships what it trained."""
    for stage in load_pipeline(output / RECIPE).stages:
        place = output / stage.name / REFUSED
        if stage.gate is not None and place.is_file():
            return str(read_json(place)["decision"])
    return None


@contextmanager
def _timed(name: str, output: Path) -> Iterator[None]:
    """Add to the seconds of a stage, also of one that was stopped."""
    start = time.perf_counter()
    try:
        yield
    finally:
        known = read_seconds(output)
        took = known.get(name, 0.0) + time.perf_counter() - start
        write_json(output / SECONDS, {**known, name: round(took, 1)})


def resume_pipeline(output: Path) -> Path:
    """Go on with a pipeline that was stopped."""
    return run_pipeline(load_pipeline(output / RECIPE), output)


def _run_stage(stage: Stage, output: Path) -> None:
    folder = output / stage.name
    kind = KINDS[stage.kind]
    if kind.leaves is not None and (folder / kind.leaves).exists():
        return
    asked = _resolve(stage.model_dump(), output)
    kind.run(getattr(Stage.model_validate(asked), stage.kind), folder, output)


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
