"""Checks of types that cost little: only functions whose annotations name the shape of an array check shapes.

jaxtyping's own check binds each call and checks it twice, which was two fifths of the processor time of all tests. A
function without such annotations needs no more than beartype, and one with them no more than sizes to agree on. A test
checks the first calls of each function, and some of all behind them: layer after layer and chunk after chunk is called alike.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jaxtyping
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

CALLS, EVERY = 64, 8
"""Calls of a function that each test checks, and of those behind them one of so many."""
number = 0
"""Of the tests that have begun, the one that runs."""
check_twice = jaxtyping.jaxtyped


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Check the first calls of each function anew."""
    global number  # noqa: PLW0603 - one for all functions
    number += 1


def names_arrays(annotation: object) -> bool:
    """Whether an array's shape stands anywhere in an annotation."""
    if inspect.isclass(annotation) and not isinstance(annotation, types.GenericAlias):
        return issubclass(annotation, jaxtyping.AbstractArray)
    parts = typing.get_args(annotation)
    return any(names_arrays(part) for part in (*parts, *listed(parts)))


def is_text(annotation: object) -> bool:
    """Whether a text that stands for a type is anywhere in an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return False
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        parts = parts[:1]
    return isinstance(annotation, str | typing.ForwardRef) or any(
        is_text(part) for part in (*parts, *listed(parts))
    )


def listed(parts: tuple[object, ...]) -> list[object]:
    """Return the parameters of a callable, which stand in a list of their own."""
    return [inner for part in parts if isinstance(part, list) for inner in part]


def check_types(subject: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Do what ``jaxtyping.jaxtyped`` does, which puts this above each function and class that is imported."""
    if subject is None:
        return partial(check_types, typechecker=typechecker)
    if inspect.isfunction(subject):
        return check_function(subject, typechecker)
    if isinstance(subject, classmethod | staticmethod):
        return type(subject)(check_types(subject.__func__, typechecker=typechecker))
    if isinstance(subject, property):
        parts = (subject.fget, subject.fset, subject.fdel)
        return property(*(part and check_types(part, typechecker=typechecker) for part in parts))
    if dataclasses.is_dataclass(subject) and "__init__" in vars(subject):
        subject.__init__ = check_types(subject.__init__, typechecker=typechecker)
        return subject
    return check_twice(subject, typechecker=typechecker)


def check_function(subject: Callable[..., Any], typechecker: Callable[[Any], Any]) -> Any:
    found = [value for value in subject.__annotations__.values() if value is not None]
    if not found:
        return subject
    if any(map(is_text, found)):
        return check_twice(subject, typechecker=typechecker)  # which lets what nobody imports be
    if not any(map(names_arrays, found)):
        return from_first_call(subject, typechecker)
    if inspect.isgeneratorfunction(subject) or inspect.iscoroutinefunction(subject):
        return check_twice(subject, typechecker=typechecker)  # its work begins after the call
    return from_first_call(subject, lambda plain: with_sizes(typechecker(plain)))


def with_sizes(checked: Callable[..., Any]) -> Callable[..., Any]:
    """Let the axes of one call that bear one name have one size, and say which in what it refuses."""

    def call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        sizes = push_shape_memo({})
        try:
            return checked(*arguments, **named)
        except BeartypeCallHintViolation as error:
            error.add_note(shape_str(sizes))
            raise
        finally:
            pop_shape_memo()

    return call


def from_first_call(
    plain: Callable[..., Any], make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """Call what checks, made when first it is needed; the plain function for most calls behind the first of a test, and
    where jaxtyping is told to check nothing.
    """
    checked: Callable[..., Any] | None = None
    test, calls = -1, 0

    @wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        __tracebackhide__ = True
        nonlocal checked, test, calls
        if test != number:
            test, calls = number, 0
        calls += 1
        if (calls > CALLS and calls % EVERY) or jaxtyping.config.jaxtyping_disable:
            return plain(*arguments, **named)
        if checked is None:
            checked = make(plain)
        return checked(*arguments, **named)

    return call


jaxtyping.jaxtyped = check_types
