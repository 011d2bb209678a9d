"""Run stages one after another, each in a process with a limit, and keep what they found.

A stage writes its rows one by one, so that one that is stopped has those that it finished.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_report_stages import Stage

SHORTEST = 5.0
"""Seconds that a stage needs to begin at all."""
FINISHED = "done"


@dataclass(frozen=True)
class Runner:
    """Runs stages and keeps their results in a folder.

    Attributes:
        folder: Where results are, from this time or an earlier one.
        key: What a result must agree with to be taken: commit, device, torch and the like.
        command: Begins the process of a stage; its name and the file for its rows follow.
        budget: Seconds of all stages together.
    """

    folder: Path
    key: dict[str, str]
    command: Sequence[str]
    budget: float

    def run(self, stages: Sequence[Stage]) -> list[dict[str, object]]:
        """Return the result of each stage, in order."""
        end = time.monotonic() + self.budget
        results = []
        for stage in stages:
            known = self.known(stage)
            if known is None:
                left = end - time.monotonic()
                known = self._begin(stage, min(stage.seconds, left))
                path = self.folder / f"{stage.name}.json"
                path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            print(f"{stage.name}: {known['status']} ({known['seconds']} s)", flush=True)
            results.append(known)
        return results

    def known(self, stage: Stage) -> dict[str, object] | None:
        """Return the result of a stage that was finished before, under the same key."""
        path = self.folder / f"{stage.name}.json"
        try:
            found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = found.get("key") == self.key and found.get("status") == FINISHED
        return found if same else None

    def _begin(self, stage: Stage, seconds: float) -> dict[str, object]:
        if seconds < SHORTEST:
            return self._result(stage, "not begun: the budget is spent", 0.0, [])
        rows = self.folder / f"{stage.name}.rows"
        rows.write_text("", encoding="utf-8")
        log = self.folder / f"{stage.name}.log"
        start = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            code = self._wait([*self.command, stage.name, str(rows)], file, seconds)
        took = time.monotonic() - start
        status = FINISHED
        if code is None:
            status = f"out of time: stopped after {seconds:.0f} s"
        elif code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            status = f"failed with code {code}: {lines[-1] if lines else 'no output'}"[:300]
        *whole, _ = rows.read_text(encoding="utf-8").split(
            "\n"
        )  # the last may be cut in its middle
        found = [json.loads(line) for line in whole]
        rows.unlink()
        if code == 0:
            log.unlink()
        return self._result(stage, status, took, found)

    def _wait(self, command: Sequence[str], log: object, seconds: float) -> int | None:
        """Return the exit code of a process; None for one that was stopped, with all that it started."""
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _result(
        self, stage: Stage, status: str, seconds: float, rows: list[dict[str, object]]
    ) -> dict[str, object]:
        return {
            "stage": stage.name,
            "title": stage.title,
            "status": status,
            "seconds": round(seconds, 1),
            "key": self.key,
            "rows": rows,
        }
