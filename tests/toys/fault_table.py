"""The table at the end of ``make prove``: how many faults each command bore."""

import pytest

VERDICTS = ("handled", "traceback", "hang", "leftover", "lost")


def print_table(reporter: pytest.TerminalReporter) -> None:
    """Print a line for each command whose tests noted their ``faults``; workers' tests come here too."""
    reports = [one for kind in ("passed", "failed") for one in reporter.stats.get(kind, [])]
    noted = [
        dict(one.user_properties).get("faults") for one in reports if "many_faults" in one.nodeid
    ]
    found = [row for row in noted if row is not None]
    if not found:
        return
    reporter.section("faults")
    total = ["all", *map(sum, zip(*(row[1:] for row in found), strict=True))]
    for row in (["", *VERDICTS], *found, total):
        reporter.write_line("".join(f"{cell!s:>16}" for cell in row))
