"""Encode a corpus on a cluster with Ray Data, the exported model as the function that is mapped.

    pip install "ray[data]"          # beside embedtrain, on every machine
    python scripts/encode_with_ray.py runs/a/model corpus/ --output vectors/ --processes 8 --gpus 1

Ray reads, schedules, repeats what failed and writes Parquet; each process loads the model once. On one machine, or
on several with a shared file system, `torchrun ... -m embedtrain encode` does the same without Ray.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exit_codes import run_main

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder


class Encode:
    """Holds the model in a process of its own; a call turns a batch of texts into vectors."""

    def __init__(self, model: str, side: str, column: str) -> None:
        torch.set_num_threads(1 if not torch.cuda.is_available() else 4)
        self.model, self.side, self.column = load_encoder(model), side, column

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add the column ``embedding``; the others, ids among them, stay."""
        vectors = encode_texts(self.model, list(batch[self.column]), self.side)
        return batch | {"embedding": np.asarray(vectors, dtype=np.float32)}


def main() -> None:
    """Encode what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of an exported dense model")
    parser.add_argument("texts", type=Path, help="a folder or file of .parquet or .jsonl")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--column", default="text")
    parser.add_argument("--side", default="document", choices=["query", "document"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0, help="of each process")
    parser.add_argument("--batch-size", type=int, default=1024)
    arguments = parser.parse_args()
    try:
        import ray
    except ImportError as error:
        cure = 'Run pip install "ray[data]"'
        raise UserError("ray", "is needed to encode but is not installed", cure=cure) from error
    ray.init(log_to_driver=False)
    texts = str(arguments.texts.resolve())
    names = (
        [path.name for path in arguments.texts.iterdir()] if arguments.texts.is_dir() else [texts]
    )
    read = (
        ray.data.read_parquet if all(n.endswith(".parquet") for n in names) else ray.data.read_json
    )
    start = time.perf_counter()
    encoded = read(texts).map_batches(
        Encode,
        fn_constructor_args=(
            str(Path(arguments.model).resolve()),
            arguments.side,
            arguments.column,
        ),
        batch_size=arguments.batch_size,
        compute=ray.data.ActorPoolStrategy(size=arguments.processes),
        num_gpus=arguments.gpus,
    )
    encoded.write_parquet(str(arguments.output.resolve()))
    rows = ray.data.read_parquet(str(arguments.output.resolve())).count()
    seconds = time.perf_counter() - start
    print(f"{arguments.output}: {rows:,} rows, {rows / seconds:,.1f} a second")


if __name__ == "__main__":
    run_main(main)
