"""Which texts go together, and that none starves, is computed twice or is computed for nobody."""

import threading

import numpy as np
import pytest

from embedtrain.serving.queue import Ask, Prepared, Queue

NUMBERS = iter(range(1, 10**6))


def texts(*sizes):
    """Different texts of so many tokens."""
    return [Prepared(np.full(size, next(NUMBERS), dtype=np.int32)) for size in sizes]


def ask(queue, waiting, lane=(0, "document")):
    found = Ask(lane, None, len(waiting), [None] * len(waiting))
    queue.put(found, waiting)
    return found


def taken(queue):
    return [job.prepared for job in queue.take()]


def test_one_query_is_not_held_up_by_many_documents():
    queue = Queue(100, 0.0)
    many, one = texts(*[10] * 50), texts(5)
    ask(queue, many)
    ask(queue, one)
    batch = taken(queue)
    assert one[0] in batch
    assert [text for text in batch if text is not one[0]] == many[:9]


def test_a_batch_holds_no_more_than_its_budget_unless_one_text_does():
    queue = Queue(100, 0.0)
    ask(queue, texts(60, 50, 300, 1))
    assert [[len(text.ids) for text in taken(queue)] for _ in range(4)] == [[60], [50], [300], [1]]
    assert queue.tokens == 0


def test_every_request_is_served_before_one_is_served_again():
    queue = Queue(30, 0.0)
    requests = [texts(*[10] * 3) for _ in range(7)]
    for one in requests:
        ask(queue, one)
    first = [id(text) for _ in range(3) for text in taken(queue)][:7]
    assert first == [id(one[0]) for one in requests]


def test_sides_are_not_mixed_and_take_turns():
    queue = Queue(20, 0.0)
    documents, queries = texts(*[10] * 6), texts(10, 10)
    ask(queue, documents)
    ask(queue, queries, (0, "query"))
    assert taken(queue) == documents[:2]
    assert taken(queue) == queries
    assert taken(queue) == documents[2:4]


def test_a_text_that_several_want_is_computed_once():
    queue = Queue(100, 0.0)
    text = texts(10)[0]
    again = Prepared(text.ids.copy())
    first, second = ask(queue, [text, text]), ask(queue, [again])
    jobs = queue.take()
    assert [one for one, _ in jobs[0].asked] == [first, first, second]
    assert [len(jobs), queue.tokens] == [1, 0]
    third = ask(queue, [again])  # while it is being computed
    assert jobs[0].asked[-1] == (third, 0)
    queue.forget(jobs[0])
    ask(queue, [again])
    assert queue.take()[0] is not jobs[0]


def test_what_nobody_wants_any_more_is_not_computed():
    queue = Queue(100, 0.0)
    own, shared = texts(10, 20)
    gone, other = ask(queue, [own, shared]), ask(queue, [shared])
    queue.drop(gone)
    assert queue.tokens == 20
    jobs = queue.take()
    assert [job.prepared for job in jobs] == [shared]
    assert jobs[0].asked == [(other, 0)]
    ask(queue, [own])
    assert taken(queue) == [own], "it can be asked for again"


@pytest.mark.parametrize("much", [False, True])
def test_an_idle_model_waits_for_company_unless_there_is_enough(much):
    queue, batches = Queue(40, 0.5), []
    taker = threading.Thread(target=lambda: batches.append(taken(queue)))
    taker.start()
    while not queue._changed._waiters:
        threading.Event().wait(0.001)
    first, second = texts(20 if much else 5), texts(5)
    ask(queue, first)
    if much:
        taker.join(0.4)
        assert not taker.is_alive()
    ask(queue, second)
    taker.join()
    assert batches == [first if much else first + second]


def test_a_closed_queue_gives_what_waits_and_then_ends():
    queue = Queue(100, 1.0)
    waiting = texts(5)
    ask(queue, waiting)
    queue.close()
    assert taken(queue) == waiting
    assert queue.take() is None
