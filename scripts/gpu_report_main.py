"""What gpu_report.py does: all stages, or a single one in the process of its own; the key of its results."""

import argparse
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from gpu_report_device import name
from gpu_report_page import render
from gpu_report_runner import FINISHED, Runner
from gpu_report_setting import Setting
from gpu_report_stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "gpu_report.py"
MEASURED = ("embedtrain", "kernels", "scripts/gpu_report*.py")
"""Sources whose change makes a result old."""


def run(options: argparse.Namespace) -> int:
    """Run the stages, or one of them where another process asks for it; return the exit code."""
    if problem := obstacle(options):
        print(problem, file=sys.stderr)
        return 2
    if options.wheels is not None:
        sys.path.insert(0, str(unpack(options.wheels, options.output)))
    setting = Setting(torch.device(options.device), options.tiny, options.output)
    if options.run is not None:
        _run_stage(setting, *options.run)
        return 0
    wanted = [stage for stage in STAGES if not options.stage or stage.name in options.stage]
    runner = Runner(options.output, _key(setting), _command(options), options.budget)
    results = runner.run(wanted)
    known = {one.name: runner.known(one) for one in STAGES}
    shown = {str(one["stage"]): one for one in results}
    every = [shown.get(one.name) or known[one.name] for one in STAGES]
    report = [one for one in every if one is not None]
    head = ", ".join(f"{label} {value}" for label, value in runner.key.items())
    (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / "report.md").write_text(render(report, head))
    print(options.output / "report.md")
    return int(any(one["status"] != FINISHED for one in results))


def obstacle(options: argparse.Namespace) -> str:
    """Say what keeps the report from being made; empty if nothing. The output folder is there afterwards."""
    if options.device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device here: nothing was measured"
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return (
            f"--output cannot be a folder ({error.strerror}); got {options.output}. Name another."
        )
    if options.wheels is not None and not any(options.wheels.glob("*.whl")):
        return (
            f"--wheels holds no wheel; got {options.wheels}. Fill it by scripts/pack_gpu_report.py."
        )
    return ""


def _command(options: argparse.Namespace) -> list[str]:
    """Return what begins the process of a stage."""
    command = [sys.executable, str(SCRIPT), "--output", str(options.output)]
    command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    command += ["--wheels", str(options.wheels)] if options.wheels else []
    return [*command, "--run"]


def unpack(wheels: Path, output: Path) -> Path:
    """Unpack wheels into a folder beside the results, once, and return it; no pip is needed.

    The folder is named by what it holds, so that wheels that were packed anew are not taken for the old ones.
    """
    packed = sorted(wheels.glob("*.whl"))
    listed = "".join(f"{wheel.name} {wheel.stat().st_size}\n" for wheel in packed)
    site = output / f"site-{hashlib.sha256(listed.encode()).hexdigest()[:12]}"
    if not site.is_dir():
        partial = site.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for wheel in packed:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(partial)
        partial.rename(site)
    return site


def _run_stage(setting: Setting, stage: str, rows: str) -> None:
    found = next(one for one in STAGES if one.name == stage)
    with Path(rows).open("a", encoding="utf-8") as file:
        for row in found.rows(setting):
            file.write(json.dumps(row) + "\n")
            file.flush()


def _commit() -> str:
    """Return the commit of this checkout; a copy may have no history, a machine no git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _key(setting: Setting) -> dict[str, str]:
    """Return what a result must agree with to be taken again."""
    digest = hashlib.sha256()
    for pattern in MEASURED:
        for path in sorted(ROOT.glob(f"{pattern}/**/*.py" if "*" not in pattern else pattern)):
            digest.update(path.read_bytes())
    return {
        "commit": _commit(),
        "sources": digest.hexdigest()[:12],
        "device": name(setting),
        "torch": torch.__version__,
        "sizes": "tiny" if setting.tiny else "full",
    }
