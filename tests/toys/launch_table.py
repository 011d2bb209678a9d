"""The table after ``test_no_waits.py``: how much work a training step starts on a device, and how often it waits."""

import pytest


def print_table(reporter: pytest.TerminalReporter) -> None:
    """Print a line for each test that noted its ``launches``; workers' tests come here too."""
    reports = [one for kind in ("passed", "failed") for one in reporter.stats.get(kind, [])]
    noted = [(one.nodeid, dict(one.user_properties).get("launches")) for one in reports]
    found = [(name.partition("[")[2][:-1], *row) for name, row in noted if row is not None]
    if not found:
        return
    reporter.section("launches and waits of a training step")
    for row in (("", "launches", "waits"), *sorted(found)):
        reporter.write_line("{!s:<48}{!s:>10}{!s:>8}".format(*row))
