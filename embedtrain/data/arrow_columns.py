"""Ragged integer columns in an Arrow file, memory-mapped and addressed by row without a copy."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BLOCK = 8192
"""Rows of a record batch. All but the last have exactly this many, so a row number names its batch."""


class ArrowWriter:
    """Appends rows to an Arrow file in record batches of ``BLOCK`` rows."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._pending: dict[str, list[Any]] = {name: [] for name in schema.names}
        self.num_rows = 0

    def append(self, row: Mapping[str, Any]) -> int:
        """Add one row and return its number."""
        self.extend({name: [value] for name, value in row.items()})
        return self.num_rows - 1

    def extend(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows, given as the values of each column."""
        for name, values in self._pending.items():
            values.extend(columns[name])
        self.num_rows += len(next(iter(columns.values())))
        while len(next(iter(self._pending.values()))) >= BLOCK:
            self._flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._flush()
        self._writer.close()
        self._sink.close()

    def _flush(self) -> None:
        if not next(iter(self._pending.values())):
            return
        arrays = [_column(self._pending[field.name][:BLOCK], field.type) for field in self._schema]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        for values in self._pending.values():
            del values[:BLOCK]


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build a column: of lists from all their values at once, which takes a fifth of the time."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum([len(one) for one in values], out=offsets[1:])
    number = kind.value_type.to_pandas_dtype()
    if isinstance(values[0], np.ndarray):
        flat = np.concatenate(values).astype(number, copy=False)
    else:
        flat = np.fromiter(chain.from_iterable(values), number, int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)


class ArrowColumns:
    """Read-only view of a file that :class:`ArrowWriter` wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        self._views: dict[tuple[int, str], tuple[NDArray[Any], NDArray[np.int32]]] = {}
        blocks = self._file.num_record_batches
        last: int = self._file.get_batch(blocks - 1).num_rows if blocks else 0
        self._length: int = max(blocks - 1, 0) * BLOCK + last

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[type["ArrowColumns"], tuple[Path]]:
        return ArrowColumns, (self._path,)  # another process maps the file itself

    def row(self, name: str, index: int) -> NDArray[Any]:
        """Return the list at row ``index`` of a list column, as a view into the file."""
        values, offsets = self._view(index // BLOCK, name)
        within = index % BLOCK
        return values[offsets[within] : offsets[within + 1]]

    def values(self, name: str, indices: Iterable[int]) -> NDArray[np.int64]:
        """Return the numbers at ``indices`` of a column of integers."""
        blocks = (divmod(index, BLOCK) for index in indices)
        return np.array([self._view(block, name)[0][row] for block, row in blocks], dtype=np.int64)

    def _view(self, block: int, name: str) -> tuple[NDArray[Any], NDArray[np.int32]]:
        view = self._views.get((block, name))
        if view is None:
            column = self._file.get_batch(block).column(name)
            if pa.types.is_list(column.type):
                view = (column.values.to_numpy(), column.offsets.to_numpy())
            else:
                view = (column.to_numpy(), np.zeros(0, dtype=np.int32))
            self._views[block, name] = view
        return view


def length_summary(path: Path, sample: int = 10_000) -> tuple[int, ...]:
    """Return the 10th, 50th, 90th and 99th percentile, and the mean, of a sample of lengths of ``tokens``."""
    columns = ArrowColumns(path)
    chosen = np.linspace(0, len(columns) - 1, min(sample, len(columns))).astype(int).tolist()
    lengths = np.array([len(columns.row("tokens", index)) for index in chosen])
    return (*np.percentile(lengths, [10, 50, 90, 99]).astype(int).tolist(), round(lengths.mean()))
