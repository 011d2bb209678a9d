"""Arrays as files: the bytes that numpy writes, in room that was taken before."""

import resource
import signal

import numpy as np
import pytest
from disks import PAGE, disk, names
from forks import fork

from embedtrain.arrays import new_array, place_array, save_array, save_rows
from embedtrain.errors import UserError
from embedtrain.files import appearing

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.arange(6, dtype=np.int64),
    np.zeros((0, 4), dtype=np.float32),
    np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    np.array(3.0),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype} {array.shape}")
def test_the_bytes_are_those_of_numpy(array, tmp_path):
    np.save(tmp_path / "numpy.npy", array)
    save_array(tmp_path / "ours.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


@pytest.mark.parametrize("array", ARRAYS[:3], ids=lambda array: f"{array.dtype} {array.shape}")
def test_a_mapped_array_is_filled_in_place(array, tmp_path):
    mapped = new_array(tmp_path / "a.npy", array.dtype, array.shape)
    mapped[:] = array
    np.save(tmp_path / "numpy.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_rows_whose_number_is_not_known_before(tmp_path):
    blocks = [np.full((n, 3), n, dtype=np.float32) for n in (2, 0, 70_000)]
    save_rows(tmp_path / "rows.npy", blocks, 3)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), np.concatenate(blocks))
    save_rows(tmp_path / "none.npy", [], 3)
    assert np.load(tmp_path / "none.npy", mmap_mode="r").shape == (0, 3)


def test_a_full_disk_refuses_a_mapped_array_before_anything_is_written(tmp_path):
    """Without the room the process would end by a signal when it fills the array."""

    def fill(place):
        with appearing(place / "a.npy") as partial:
            new_array(partial, np.float32, (300, PAGE))[:] = 1

    with disk(tmp_path / "disk") as place:
        done = fork(lambda: fill(place))
        assert done.returncode == 1, done
        message = done.stderr.splitlines()[-1]
        assert f"{place}/a.npy cannot be written: the disk is full; got '" in message
        assert "1.04 MB free, 4.92 MB needed'. Free some space" in message
        assert names(place) == []


@pytest.mark.parametrize("save", [new_array, place_array])
def test_a_file_larger_than_allowed_is_one_line(save, tmp_path):
    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE, PAGE))
        with appearing(tmp_path / "a.npy") as partial:
            if save is new_array:
                new_array(partial, np.float32, (2, PAGE))[:] = 1
            else:
                place_array(partial, np.ones((2, PAGE)))

    done = fork(work)
    assert "a.npy grows beyond the largest file allowed" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_failed_array_leaves_the_old_one(tmp_path):
    save_array(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(UserError, match="no ordinary file"):
        save_array(tmp_path / "fifo", _fifo(tmp_path / "fifo"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "fifo"]


def _fifo(path):
    import os

    os.mkfifo(path)
    return np.arange(3)
