"""One page that says what came of a fit: the decision first, then why, then how to repeat it."""

import json
from pathlib import Path
from typing import Any

from embedtrain.evaluation.results.page import (
    Section,
    code,
    fold,
    page,
    paragraph,
    table,
)
from embedtrain.evaluation.results.wording import counted, model_name
from embedtrain.files import appearing, read_json
from embedtrain.outside import writing
from embedtrain.recipe.run_files import read_environment
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.redaction import redact
from embedtrain.units import show_seconds
from embedtrain.workflows.fit.plan import Plan
from embedtrain.workflows.fit.report_data import data_sections
from embedtrain.workflows.fit.report_scores import by_answers, change_parts, score_parts
from embedtrain.workflows.fit.report_training import training_sections
from embedtrain.workflows.fit.wish import FitWish, known_wish
from embedtrain.workflows.gate import REFUSED, read_verdict
from embedtrain.workflows.pipeline import RECIPE, load_pipeline, read_seconds
from embedtrain.workflows.stages import Stage

PAGE = "report.html"
METRIC = (
    "nDCG@10 is 1 where what answers a query is found first, less the further below it stands, and 0 where it is not "
    "among the first ten."
)
SHORT = "The start is the result: model/ holds it unchanged, and nothing that was trained is used."


def write_fit_report(output: Path) -> Path:
    """Write ``report.html``, which needs no network, and ``report.json`` beside it.

    Raises:
        UserError: If a stage left something that cannot be read, or the disk is full.
    """
    wish, plan = known_wish(output), Plan.model_validate(read_json(output / "plan.json"))
    assert wish is not None
    stages = load_pipeline(output / RECIPE).stages
    verdict = _verdict(output, stages)
    gates = [stage for stage in stages if stage.gate is not None]
    scores, changes = score_parts(output, gates), change_parts(output, gates)
    sections = [
        ("", _lead(wish, verdict)),
        *scores,
        *data_sections(output, stages),
        *training_sections(output, stages),
        *changes,
        _costs(output, plan),
        _repetition(output, wish, stages),
    ]
    facts = {"verdict": verdict, "plan": plan.model_dump(), "seconds": read_seconds(output)}
    place = output / PAGE
    beside = place.with_suffix(".json")
    shown = page(f"fit: {output.resolve().name}", sections)
    with writing(place), appearing(beside) as facts_part, appearing(place) as page_part:
        facts_part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        page_part.write_text(shown, encoding="utf-8")
    return place


def _verdict(output: Path, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """Return what the last gate said, or why the work ended before it."""
    if (output / REFUSED).is_file():
        found: dict[str, Any] = read_json(output / REFUSED)
        return found
    return read_verdict(output / [stage.name for stage in stages if stage.gate is not None][-1])


def _lead(wish: FitWish, verdict: dict[str, Any]) -> list[str]:
    """Say what was decided, what is to be known about it, and what was done."""
    pieces = [paragraph(str(verdict["decision"]), "lead")]
    if not verdict["ships"]:
        pieces.append(paragraph(SHORT))
    pieces += [paragraph(f"{warning}.") for warning in verdict.get("warnings", ())]
    learned = "pairs that were given" if wish.pairs else "queries that were made from documents"
    writer = f", written by {redact(wish.llm)}" if wish.llm else ""
    pieces.append(
        paragraph(
            f"{model_name(wish.model)} learned from {learned}{writer}. Both models answered the same queries, which "
            f"neither trained nor chose the model. {METRIC}"
        )
    )
    return pieces + [paragraph(said) for said in by_answers(verdict)]


def _costs(output: Path, plan: Plan) -> Section:
    """List what each stage was planned to take, and took."""
    took = read_seconds(output)
    rows = [
        [name, _shown(plan.seconds.get(name)), show_seconds(seconds)]
        for name, seconds in took.items()
    ]
    rows.append(["all", show_seconds(plan.total), show_seconds(sum(took.values()))])
    trials = ", ".join(f"{name} {counted(number, 'step')}" for name, number in plan.steps.items())
    spent = _spent(output)
    said = [
        f"Budget {show_seconds(plan.budget)}; trials: {trials} of {plan.batch_size} queries.",
        *([spent] if spent else []),
    ]
    return "Time and cost", [table(("stage", "planned", "took"), rows), *map(paragraph, said)]


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else show_seconds(seconds)


def _spent(output: Path) -> str:
    """Say what the language model that wrote queries was asked, where one was."""
    asked = read_json(output / "data" / "report.json", optional=True).get("language_model")
    if not asked:
        return ""
    said = (
        f"Language model {redact(str(asked['model']))}: {asked['requests']:,} requests, {asked['prompt_tokens']:,} tokens of "
        f"prompts and {asked['completion_tokens']:,} of answers"
    )
    money = f", cost {asked['cost']:g}" if "cost" in asked else ""
    ended = f"; ended by {asked['ended']}" if asked["ended"] else ""
    return f"{said}{money}{ended}."


def _repetition(output: Path, wish: FitWish, stages: tuple[Stage, ...]) -> Section:
    """Show the command and, folded, the pipeline that it stands for, and the versions."""
    said = [code(command_of(wish, output))]
    recipe = (output / RECIPE).read_text(encoding="utf-8")
    said.append(fold("The pipeline, an ordinary recipe", [code(redact(recipe))]))
    for stage in stages:
        environment = read_environment(RunFolder(output / stage.name)) if stage.train else None
        if environment:
            found = environment.get("versions", {})
            said.append(paragraph(", ".join(f"{name} {one}" for name, one in found.items()) + "."))
            break
    return "How to repeat it", said


def command_of(wish: FitWish, output: Path) -> str:
    """Return the words that begin this work, and go on with it."""
    words = ["embedtrain fit", *([wish.corpus] if wish.corpus else [])]
    flags = {
        "--pairs": wish.pairs,
        "--queries": wish.queries,
        "--llm": wish.llm,
        "--reranker": wish.reranker,
    }
    for flag, value in flags.items():
        words += [flag, redact(value)] if value else []
    words += ["--model", wish.model, "--budget", f"{wish.seconds:g}s"]
    for guard in wish.guards:
        words += ["--guard", guard]
    return " ".join([*words, "--output", str(output)])
