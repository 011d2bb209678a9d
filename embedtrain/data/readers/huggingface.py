"""Data sets of the Hugging Face ``datasets`` library: a Hub id, or a folder that it saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of, limited
from embedtrain.data.readers.rows import RowReader
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError


def open_datasets(config: SourceConfig) -> Source:
    """Open one split; its Arrow files are mapped, not read into memory. No code of a data set is run."""
    folder = Path(config.path)
    data = load_saved(config) if is_saved(folder) else load_hub(config)
    place = f"{config.path} [{config.split}]"
    reader = RowReader(config.columns, score_range=config.score_range)

    def stream() -> Iterator[Example]:
        for number, row in enumerate(data, 1):
            yield reader.read(row, f"{place} row {number}")

    if folder.is_dir():
        content = hash_files(sorted(path for path in folder.rglob("*") if path.is_file()))
    else:
        content = data._fingerprint  # noqa: SLF001 - the library has no public name for it
    return Source(
        config, place, fingerprint_of(config, content), stream, limited(len(data), config)
    )


def is_saved(folder: Path) -> bool:
    """Tell a folder written by ``save_to_disk``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def load_saved(config: SourceConfig) -> Any:  # noqa: ANN401 - datasets is not typed for mypy here
    """Load a folder written by ``save_to_disk``; one without splits is taken whole."""
    import datasets

    data = datasets.load_from_disk(config.path)
    if isinstance(data, datasets.DatasetDict):
        if config.split not in data:
            raise _unknown_split(config, sorted(data))
        return data[config.split]
    return data


def load_hub(config: SourceConfig) -> Any:  # noqa: ANN401
    """Load a split of a Hub data set, or of a local folder of data files."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        return datasets.load_dataset(config.path, config.name, split=config.split)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        reason = str(error).splitlines()[0]
        cure = "Check the path, or the network for a Hub id"
        raise UserError(
            config.path, f"is no file, folder or reachable Hub data set ({reason})", cure=cure
        ) from None
    except (ValueError, RuntimeError, DatasetsError) as error:
        if "unknown split" not in str(error).lower():
            raise UserError(config.path, f"cannot be loaded by datasets ({error})") from error
        found = datasets.get_dataset_split_names(config.path, config.name)
        raise _unknown_split(config, found) from None


def _unknown_split(config: SourceConfig, found: list[str]) -> UserError:
    return UserError(
        config.path, "has no such split", got=config.split, cure=f"Choose from {', '.join(found)}"
    )
