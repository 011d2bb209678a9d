"""A language model is asked, and asked again where an answer came that cannot be used."""

from collections.abc import Callable

from embedtrain.encoding.language.chat import ChatModel, Request
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.progress import console
from embedtrain.synthesis.tally import Tally

ATTEMPTS = 3
"""How often a request is made whose answer cannot be used."""


def ask(
    chat: ChatModel,
    store: RequestStore,
    tally: Tally,
    count: int,
    make: Callable[[int, int], Request],
    problem_of: Callable[[int, int], str],
) -> list[int]:
    """Ask for all, and return for each the attempt whose answer counts.

    Args:
        chat: Who answers.
        store: Keeps the answers.
        tally: What became of the requests is added to it.
        count: How many are asked for.
        make: Gives the request for one of them, by its number and attempt.
        problem_of: Says why the answer to such a request cannot be used; empty where it can, or none came.

    Raises:
        UserError: If the server refuses requests, or the context leaves no room for a text.
    """
    attempts = [0] * count
    left = list(range(count))
    while left and not tally.ended:
        tally.ended = chat.answer([make(row, attempts[row]) for row in left], store)
        problems = {row: problem_of(row, attempts[row]) for row in left}
        tally.problems.update(problem for problem in problems.values() if problem)
        left = [row for row in left if problems[row] and attempts[row] + 1 < ATTEMPTS]
        for row in left:
            attempts[row] += 1
    tally.requests, tally.failures = count, list(chat.failures.values())
    if not tally.ended and any(one.passing for one in tally.failures):
        tally.ended = tally.failed()
    if tally.ended:
        console.print(f"{chat.name}: {tally.ended}; the same command goes on later")
    return attempts
