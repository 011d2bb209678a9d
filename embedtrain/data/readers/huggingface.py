"""Data sets of the Hugging Face ``datasets`` library: a Hub id, or a folder that it saved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of, limited
from embedtrain.data.readers.rows import RowReader
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.outside import reading


def open_datasets(config: SourceConfig) -> Source:
    """Open one split; its Arrow files are mapped, not read into memory. No code of a data set is run."""
    data, content = open_split(config.path, config.split, config.name)
    place = f"{config.path} [{config.split}]"
    reader = RowReader(config.columns, score_range=config.score_range)

    def stream() -> Iterator[Example]:
        with reading(place):
            for number, row in enumerate(data, 1):
                yield from reader.examples(row, f"{place} row {number}")

    length = limited(len(data), config)
    return Source(config, place, fingerprint_of(config, content), stream, length)


def open_split(path: str, split: str, name: str | None) -> tuple[Any, str]:
    """Open a split of a folder that ``save_to_disk`` wrote or of a Hub data set; return it and a hash of it."""
    folder = Path(path)
    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    data = _load_saved(path, split) if saved else _load_hub(path, split, name)
    if folder.is_dir():
        return data, hash_files(sorted(file for file in folder.rglob("*") if file.is_file()))
    return data, data._fingerprint  # noqa: SLF001 - the library has no public name for it


def _load_saved(path: str, split: str) -> Any:  # noqa: ANN401 - datasets is not typed for mypy here
    """Load a folder written by ``save_to_disk``; one without splits is taken whole."""
    import datasets

    with reading(path):
        data = datasets.load_from_disk(path)
        if isinstance(data, datasets.DatasetDict):
            if split not in data:
                raise _unknown_split(path, split, sorted(data))
            data = data[split]
        data.data.validate(full=True)  # damaged offsets would lead outside of memory
    return data


def _load_hub(path: str, split: str, name: str | None) -> Any:  # noqa: ANN401
    """Load a split of a Hub data set, or of a local folder of data files."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        return datasets.load_dataset(path, name, split=split)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError) as error:
        reason = str(error).splitlines()[0]
        cure = "Check the path, or the network for a Hub id"
        raise UserError(
            path, f"is no file, folder or reachable Hub data set ({reason})", cure=cure
        ) from None
    except (ValueError, RuntimeError, DatasetsError) as error:
        if "unknown split" not in str(error).lower():
            raise UserError(path, f"cannot be loaded by datasets ({error})") from error
        found = datasets.get_dataset_split_names(path, name)
        raise _unknown_split(path, split, found) from None


def _unknown_split(path: str, split: str, found: list[str]) -> UserError:
    return UserError(path, "has no such split", got=split, cure=f"Choose from {', '.join(found)}")
