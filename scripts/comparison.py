"""What scripts that compare are told: where the data lie, where their work goes, and a file for the figures."""

import argparse
from pathlib import Path


def comparison(purpose: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that they share; ``purpose`` is what the script says of itself."""
    parser = argparse.ArgumentParser(
        description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with the sets")
    parser.add_argument("--output", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--json", type=Path, help="a file of figures")
    return parser
