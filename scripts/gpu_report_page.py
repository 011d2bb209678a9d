"""The report's Markdown: goals first, then a table for each stage."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from gpu_report_runner import FINISHED

from embedtrain.training.devices import device_of_key

Result = Mapping[str, object]
Rows = list[Mapping[str, object]]
MEMEFF_MS = 184.0
"""What memeff publishes for 65,536 x 65,536 in 384 dimensions, on an A100."""


def render(results: Sequence[Result], setting: str) -> str:
    """Return the page."""
    parts = ["# embedtrain on a GPU", "", setting, "", "## Goals", ""]
    parts += table([{"goal": goal, "found": found, "": verdict} for goal, found, verdict in goals(results)])  # fmt: skip
    for result in results:
        parts += ["", f"## {result['title']}", ""]
        if result["status"] != FINISHED:
            parts += [f"**{result['status']}**", ""]
        rows = result["rows"]
        parts += table(rows) if isinstance(rows, list) and rows else ["No rows."]
    return "\n".join([*parts, ""])


def table(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the lines of a table with a column for every name that occurs."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[_shown(row.get(name, "")) for name in names] for row in rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _shown(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "/").replace("\n", " ")


def goals(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """Return each goal, what was found of it, and whether it is reached."""
    rows = {str(one["stage"]): _rows(one) for one in results}
    key = next((str(row["value"]) for row in rows.get("device", []) if row.get("fact") == "in the table"), "no")  # fmt: skip
    infonce = [
        row
        for row in rows.get("infonce", [])
        if row.get("B") == 65_536 and str(row.get("form")).startswith("embedtrain") and "ms" in row
    ]
    return [
        _goal(
            "InfoNCE at B = 65,536 in bf16 reaches 60 % of the roofline",
            [row for row in infonce if row["type"] == "bf16" and "roofline" in row],
            "roofline",
            lambda share: share >= 0.60,
        ),
        _goal(
            "BERT-base at 512 tokens reaches an MFU of 45 %",
            [row for row in rows.get("step", []) if row.get("shape") == "BERT-base" and row.get("longest") == 512],
            "mfu",
            lambda share: share >= 0.45,
        ),
        _no_waits(rows.get("syncs", [])),
        _against_memeff(infonce, key),
        _holds("Every operation is as near to float64 as its definition", rows.get("correct", [])),
        _holds("Packed gradients are those of padded steps", rows.get("packed", [])),
    ]  # fmt: skip


def _rows(result: Result) -> Rows:
    rows = result["rows"]
    return list(rows) if isinstance(rows, list) else []


def _goal(
    goal: str, rows: Rows, name: str, reached: Callable[[float], bool]
) -> tuple[str, str, str]:
    """Judge the best of the rows that have a figure."""
    values = [float(str(row[name])) for row in rows if name in row]
    if not values:
        return goal, "", "not measured"
    best = max(values)
    return goal, f"{best:.3f}", "reached" if reached(best) else "not reached"


def _no_waits(rows: Rows) -> tuple[str, str, str]:
    goal = "A training step makes the host wait 0 times"
    counts = {str(row["shape"]): int(str(row["syncs"])) for row in rows if "syncs" in row}
    if not counts:
        return goal, "", "not measured"
    shown = ", ".join(f"{shape} {count}" for shape, count in counts.items())
    return goal, shown, "not reached" if any(counts.values()) else "reached"


def _against_memeff(infonce: Rows, key: str) -> tuple[str, str, str]:
    goal = f"InfoNCE at 65,536 x 384 is faster than memeff's published {MEMEFF_MS:g} ms on an A100, scaled by the peak"  # fmt: skip
    times = [float(str(row["ms"])) for row in infonce if row.get("D") == 384 and row["type"] == "bf16"]  # fmt: skip
    if not times or key == "no":
        return goal, "", "not measured"
    limit = MEMEFF_MS * device_of_key("a100").bf16 / device_of_key(key).bf16
    verdict = "reached" if min(times) < limit else "not reached"
    return goal, f"{min(times):.1f} ms of {limit:.1f}", verdict


def _holds(goal: str, rows: Rows) -> tuple[str, str, str]:
    judged = [row for row in rows if "holds" in row]
    problems = [row for row in rows if "problem" in row]
    if not judged and not problems:
        return goal, "", "not measured"
    good = sum(bool(row["holds"]) for row in judged)
    whole = good == len(judged) and not problems
    return goal, f"{good} of {len(judged) + len(problems)}", "reached" if whole else "not reached"
