"""Workflow: a judge looks at what mining kept out and what it kept; false negatives become positives or are dropped."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from embedtrain.encoding.pair_cache import PairCache
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.errors import UserError
from embedtrain.files import appearing, default_cache, read_json, write_file, write_json
from embedtrain.locks import owns
from embedtrain.mining.judgement.asking import AskedJudge, Budget, Journal, added
from embedtrain.mining.judgement.cascade import Cascade
from embedtrain.mining.judgement.decisions import Decision, Gate, decide, gate
from embedtrain.mining.judgement.output import JudgedFolder, grades_of, judged_line, rewrite
from embedtrain.mining.judgement.pairs import ROLES
from embedtrain.mining.judgement.rows import read_mined
from embedtrain.mining.judgement.settings import JudgeConfig
from embedtrain.mining.output import MiningFolder
from embedtrain.progress import console, progress_bar
from embedtrain.redaction import redact
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.workflows.hold_out import write_qrels
from embedtrain.workflows.judge_agreement import measure
from embedtrain.workflows.judge_task import Task, open_judge, prepare, settings_of, sha256

NAMES = ("small", "large")


@dataclass(frozen=True)
class Outcome:
    """What the judges said, and what follows."""

    decisions: list[Decision]
    hubs: list[str]
    gate: Gate
    report: dict[str, object]


@going_on(SAME_COMMAND)
@owns("output")
def judge(
    mined: Path, output: Path, config: JudgeConfig, *, cache: Path | None = None
) -> JudgedFolder:
    """Judge what ``embedtrain mine`` wrote, best with ``num_rejected=20``, and write its rows again.

    Started again after a kill, it goes on with the answers it has and ends with the same bytes.

    Args:
        mined: Output folder of a mining.
        output: Folder to write.
        config: The judges, what they are asked, and what follows.
        cache: Folder of caches; the user's if None.

    Raises:
        UserError: If the rows, a judge or the labels are not usable, or the folder holds another judgement.
    """
    judges = [one for one in (config.judge, config.larger) if one is not None]
    return judge_mined(mined, [open_judge(one) for one in judges], output, config, cache=cache)


@owns("output")
def judge_mined(
    mined: Path,
    scorers: Sequence[PairScorer],
    output: Path,
    config: JudgeConfig,
    *,
    cache: Path | None = None,
) -> JudgedFolder:
    """Judge with one or two scorers in memory, the smaller first; see :func:`judge`."""
    folder = JudgedFolder(output)
    task = prepare(mined, scorers, config, cache)
    if _is_complete(folder, task.fingerprint):
        return folder
    _begin(folder, task.fingerprint)
    judges = _judges(folder, scorers, task, cache or default_cache())
    _tell_plan(judges[0], task)
    budget = Budget(config.tokens, config.money, judges)
    outcome = _outcome(task, Cascade(judges, budget, config.uncertain), config)
    rows = _write_rows(folder, mined, outcome.decisions, graded=config.grades)
    spent = {one.name: one.journal.spent for one in judges}
    report = {
        "fingerprint": task.fingerprint,
        "judges": [redact(one.model) for one in (config.judge, config.larger) if one is not None],
        "config": settings_of(config),
        "judges_of_own_queries": task.own,
        **outcome.report,
        **rows,
        "hubs": outcome.hubs,
        "spent": {**spent, "together": reduce(added, spent.values())},
        "sha256": {path.name: sha256(path) for path in (folder.training, folder.judged)},
    }
    write_json(folder.report, report)
    shutil.rmtree(folder.parts, ignore_errors=True)
    return folder


def _judges(
    folder: JudgedFolder, scorers: Sequence[PairScorer], task: Task, cache: Path
) -> list[AskedJudge]:
    """Return the judges with what they said before, in this run and in others."""
    judges = [
        AskedJudge(name, one, Journal(folder.parts / f"{name}.jsonl"), PairCache(cache, one.key()))
        for name, one in zip(NAMES, scorers, strict=False)
    ]
    for one in judges:
        one.remember([*task.measuring, *task.selected.pairs])
    return judges


def _is_complete(folder: JudgedFolder, fingerprint: str) -> bool:
    found = read_json(folder.report, optional=True)
    if found:
        known = found.get("fingerprint") if isinstance(found, dict) else None
        _refuse_other(folder, known, fingerprint)
    return bool(found)


def _begin(folder: JudgedFolder, fingerprint: str) -> None:
    mark = folder.parts / "fingerprint"
    if not mark.is_file():
        write_file(mark, fingerprint)
    _refuse_other(folder, mark.read_text("utf-8"), fingerprint)


def _refuse_other(folder: JudgedFolder, found: object, fingerprint: str) -> None:
    if found != fingerprint:
        raise UserError(
            folder.path, "was judged with other settings, rows or judges",
            cure="Choose another --output or remove the folder; answers are kept in the cache",
        )  # fmt: skip


def _tell_plan(judge: AskedJudge, task: Task) -> None:
    pairs = [*task.measuring, *task.selected.pairs]
    tokens = sum(judge.expected_tokens(pair) for pair in pairs)
    roles = Counter(pair.role for pair in task.selected.pairs)
    what = ", ".join(f"{roles[role]:,} {role}" for role in ROLES)
    console.print(
        f"Judging {len(pairs):,} pairs of {task.selected.num_queries:,} queries ({what}; "
        f"{len(task.measuring):,} to see how good the judge is): about {tokens:,.0f} tokens"
    )
    for name in task.own:
        console.print(
            f"{name} wrote the queries: as their judge it may agree with itself too often"
        )
    if not MiningFolder(task.mined).rejected.is_file():
        console.print(
            f"{task.mined} has no rejected.jsonl: only kept negatives and positives are judged. "
            "Mine with num_rejected=20 to judge what the rule kept out"
        )


def _outcome(task: Task, cascade: Cascade, config: JudgeConfig) -> Outcome:
    """Ask, measure, and decide: what shows how good the judge is comes first."""
    selected, labelled = task.selected, task.labelled
    pairs = (
        len(selected.positives) + len(labelled.measure) + len(selected.random) + len(selected.pairs)
    )
    with progress_bar("Judging", pairs) as advance:
        cascade, calibrations = cascade.calibrated(selected.random, labelled.fit)
        groups = (labelled.measure, selected.positives, selected.random)
        labels, positives, random = (cascade.ask(group, advance) for group in groups)
        agreement = measure(labels, positives, random, written=config.written)
        verdicts = cascade.ask(selected.pairs, advance)
    verdicts = list({one.pair.key: one for one in [*positives, *verdicts]}.values())
    earned = gate(agreement.kappa, config)
    decisions, hubs = decide(verdicts, config, earned, selected.num_queries, task.guarded)
    report: dict[str, object] = {
        "num_queries": selected.num_queries,
        "num_pairs": dict(Counter(pair.role for pair in selected.pairs)),
        "num_judged": dict(Counter(one.pair.role for one in verdicts)),
        "num_not_paid": len(selected.pairs) - len(verdicts),
        "num_asked_again": sum(one.large is not None for one in verdicts),
        "calibration": dict(zip(NAMES, calibrations, strict=False)),
        "agreement": agreement.report,
        "gate": earned.says,
    }
    return Outcome(decisions, hubs, earned, report)


def _write_rows(
    folder: JudgedFolder, mined: Path, decisions: Sequence[Decision], *, graded: bool
) -> dict[str, object]:
    """Write the rows and the judged pairs; return what was done, by action and by what kept more from being done."""
    of_query: dict[str, list[Decision]] = defaultdict(list)
    for one in decisions:
        of_query[one.verdict.pair.query_id].append(one)
    actions: Counter[str] = Counter()
    withheld: Counter[str] = Counter()
    grades: dict[str, dict[str, int]] = {}
    num_rows = num_dropped = 0
    with (
        appearing(folder.training) as rows, appearing(folder.judged) as judged,
        rows.open("w", encoding="utf-8", newline="") as texts,
        judged.open("w", encoding="utf-8", newline="") as pairs,
    ):  # fmt: skip
        for query in read_mined(mined):
            line, ended = rewrite(query, of_query.pop(query.row.query_id, []), graded=graded)
            if graded:
                grades[query.row.query_id] = grades_of(query, ended)
            num_dropped += line is None
            num_rows += line is not None
            texts.write(line or "")
            for one in ended:
                pairs.write(judged_line(one))
                actions[f"{one.verdict.pair.role}: {one.action}"] += 1
                withheld[one.why] += bool(one.why)
    if graded:
        write_qrels(folder.grades, grades)
    return {
        "num_rows": num_rows,
        "num_dropped_rows": num_dropped,
        "actions": dict(sorted(actions.items())),
        "withheld": {name: count for name, count in sorted(withheld.items()) if name},
    }
