"""Pack what a machine without a network may lack for gpu_report.py: wheels, 64 MiB at most with this checkout.

    python scripts/pack_gpu_report.py --output wheels [--python 3.12] [--have transformers ...]
    python scripts/gpu_report.py --wheels wheels --output gpu      # there

The machine must have torch for CUDA, with its Triton and NumPy. Versions are those of this environment; pip
fetches the wheels from its index. ``--have`` leaves out what is there already.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 64 * 2**20
NEEDED = (
    "jaxtyping",
    "psutil",
    "pydantic",
    "pytorch-lightning",
    "pyyaml",
    "transformers",
    "xxhash",
)
"""What the stages import; what these need is packed as well."""
THERE = ("torch", "numpy", "triton")
"""What the machine has, with what these need."""
PEERS = ("memeff==0.3.1", "late-interaction-kernels==0.4.5")
"""Measured beside ours where they are."""
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the wheels; return the exit code: 1 where they are too large together, 2 where pip cannot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the wheels")
    parser.add_argument("--python", default="3.12", help="version of Python on the machine")
    parser.add_argument("--have", nargs="*", default=(), help="packages that the machine has")
    options = parser.parse_args(arguments)
    if options.output.exists() and not options.output.is_dir():
        print(f"--output is no folder; got {options.output}. Name another.", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    there = set(map(canonicalize_name, options.have))
    wanted = [
        one for one in requirements() if canonicalize_name(one.partition("==")[0]) not in there
    ]
    if subprocess.run(command(options.output, options.python, wanted), check=False).returncode:
        print(
            "pip could not fetch all wheels; see above. Check the network and --python.",
            file=sys.stderr,
        )
        return 2
    size = sum(path.stat().st_size for path in options.output.glob("*.whl")) + checkout_size()
    print(f"{size / 2**20:.1f} MiB of {LIMIT / 2**20:.0f} with the checkout")
    return int(size > LIMIT)


def requirements() -> list[str]:
    """Return every package that is needed and not there, with the version that is installed here."""
    wanted = closure(NEEDED) - closure(THERE)
    return [*(f"{name}=={version(name)}" for name in sorted(wanted)), *PEERS]


def closure(names: Iterable[str]) -> set[str]:
    """Return packages and all that they need here, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # of another platform's
            continue
        found.add(name)
        for one in map(Requirement, needed):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                waiting.append(one.name)
    return found


def command(folder: Path, python: str, wanted: Sequence[str]) -> list[str]:
    """Return the call of pip that fetches wheels for the machine, not for this one."""
    platforms = [word for one in PLATFORMS for word in ("--platform", f"{one}_x86_64")]
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    call += ["--python-version", python, "--implementation", "cp", *platforms]
    return [*call, "--dest", str(folder), *wanted]


def checkout_size() -> int:
    """Return the bytes of what git knows of this checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
