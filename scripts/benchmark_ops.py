"""Compare the operations of embedtrain.ops with what people use instead, on this machine's CPU.

Every ``benchmark_ops_<operation>.py`` beside this file has ``figures(quick, png)``, which returns a flat
dictionary. Usage: python scripts/benchmark_ops.py [--only infonce] [--quick] [--json FILE] [--png FOLDER]
"""

import argparse
import json
from importlib import import_module
from pathlib import Path

from exit_codes import run_main

FOLDER = Path(__file__).parent


def main() -> None:
    """Parse, run, print, write."""
    operations = sorted(
        path.stem.removeprefix("benchmark_ops_") for path in FOLDER.glob("benchmark_ops_*.py")
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=operations, action="append", help="leave out the others")
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat")
    parser.add_argument("--json", type=Path, help="write the figures as one flat object")
    parser.add_argument("--png", type=Path, help="folder for plots of time and memory")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for operation in arguments.only or operations:
        module = import_module(f"benchmark_ops_{operation}")
        found = module.figures(quick=arguments.quick, png=arguments.png)
        for name, value in found.items():
            print(f"{name:48s} {value:12.4f}", flush=True)
        figures.update(found)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
