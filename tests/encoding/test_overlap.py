"""Work beside the device: in order, one piece ahead or behind, and no error is lost."""

import threading

import pytest

from embedtrain.encoding.overlap import ahead, behind, one_late


@pytest.mark.parametrize("threaded", [True, False])
def test_what_is_done_ahead_comes_in_order_and_its_error_in_its_place(threaded):
    assert list(ahead(lambda x: x * 2, range(5), threaded=threaded)) == [0, 2, 4, 6, 8]
    found = ahead(lambda x: 1 // x, [2, 1, 0, 1], threaded=threaded)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_thread_is_one_item_ahead():
    begun = threading.Event()

    def work(item):
        if item == 1:
            begun.set()
        return item

    found = ahead(work, range(3), threaded=True)
    assert next(found) == 0
    assert begun.wait(10), "the second is done while the caller has the first"
    found.close()


@pytest.mark.parametrize("threaded", [True, False])
def test_what_is_done_behind_is_done_in_order_and_its_error_is_raised(threaded):
    done = []
    with behind(threaded=threaded) as later:
        for number in range(4):
            later(lambda number=number: done.append((number, threading.current_thread())))
    assert [number for number, _ in done] == [0, 1, 2, 3]
    assert all((thread is threading.main_thread()) != threaded for _, thread in done)

    def write_too_much():
        with behind(threaded=threaded) as later:
            later(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        write_too_much()


def test_one_late_begins_the_next_before_it_gives_one():
    begun = []

    def items():
        for number in range(3):
            begun.append(number)
            yield number

    found = one_late(items(), late=True)
    assert (next(found), begun) == (0, [0, 1])
    assert list(found) == [1, 2]
    assert list(one_late(items(), late=False)) == [0, 1, 2]
    assert list(one_late([], late=True)) == []
