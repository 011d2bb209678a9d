from textwrap import dedent

import pytest

from embedtrain.data.python_docs.docstrings import DocumentedObject, documented_objects, public_name


def parse(source, module="pack.mod"):
    return list(documented_objects(dedent(source).encode(), module))


def test_a_function_becomes_its_first_sentence_and_the_rest():
    source = '''
    @cache
    async def find_peaks(
        signal: list[float],  # one channel
        height=None,
    ) -> list[int]:
        """Find the peaks of a noisy
        signal.

        A peak is a sample with two ``smaller`` neighbours, see :func:`~x.y`.
        """
        return 1
    '''
    document = (
        "pack.mod.find_peaks(signal: list[float], height=None) -> list[int]\n"
        "A peak is a sample with two smaller neighbours, see y."
    )
    assert parse(source) == [
        DocumentedObject("pack.mod.find_peaks", "Find the peaks of a noisy signal", document)
    ]


def test_without_more_prose_the_source_follows():
    source = '''
    def e(rows, size):
        """Split rows into chunks of equal size."""
        # as itertools.batched does

        for start in range(0, len(rows), size):
            yield call(*rows[start : start + size], **kwargs)
    '''
    (found,) = parse(f'\x0c\n"""Not found."""\n{dedent(source)}')
    assert found.document == (
        "pack.mod.e(rows, size)\n# as itertools.batched does\n\n"
        "for start in range(0, len(rows), size):\n"
        "    yield call(*rows[start : start + size], **kwargs)"
    )


def test_methods_and_classes_are_named_by_their_path_and_local_ones_are_not():
    source = '''
    if True:
        class Outer(Base):
            """Hold the rows of a table.

            Rows are kept sorted by the first of their columns.
            """

            def method(self):
                """Return the rows in reverse order.

                The rows themselves are kept, not copied to anywhere.
                """
                if self:
                    def local():
                        """Say something about local rows.

                        It must not be found since nobody can reach it.
                        """

            def __len__(self):
                """Return the number of rows in here.

                It must not be found since all objects have it, always.
                """
    '''
    found = parse(source)
    assert [each.name for each in found] == ["pack.mod.Outer", "pack.mod.Outer.method"]
    assert found[0].document.startswith("pack.mod.Outer(Base)\nRows are kept")


def test_a_module_and_a_private_name_need_more_than_a_sentence():
    prose = "It has a second paragraph that says a good deal more about it."
    body = "    return sum(range(100)) + sum(range(200)) + sum(range(300))\n"
    for rest, names in ((f"\n\n    {prose}\n", ["pack.mod", "pack.mod._f"]), ("", [])):
        source = f'"""Count all the rows there are.{rest}"""\ndef _f():\n    """Count rows that are long enough.{rest}"""\n{body}'
        assert [each.name for each in documented_objects(source.encode(), "pack.mod")] == names


@pytest.mark.parametrize("body", ["pass", "raise NotImplementedError", "return 1"])
def test_a_sentence_about_next_to_nothing_is_dropped(body):
    assert parse(f'def f():\n    """Count the rows of a table."""\n    {body}\n') == []


def test_a_document_that_repeats_the_sentence_is_dropped():
    source = '''
    def f():
        """Count the rows of a table.

        This will count the rows of a Table, and nothing else at all.
        """
    '''
    assert parse(source) == []


def test_documentation_added_to_compiled_code_is_found():
    source = '''
    from numpy import add_newdoc
    add_docstr(torch.abs, r"""
    abs(input, *, out=None) -> Tensor

    Computes the absolute value of each element.

    Args:
        {input} a tensor of any shape and any number type
    """.format(**common))
    add_newdoc("numpy._core.umath", "sin", """
        Compute the sine of each element.

        The angle is in radians, as everywhere in this module.
    """)
    add_newdoc("jv", """
        Compute a Bessel function of real order.

        Negative arguments are complex, so the result may be nan there.
    """)
    add_newdoc(name, compute_it())
    '''
    found = parse(source, "scipy.special._docs")
    assert [each.name for each in found] == ["torch.abs", "numpy.umath.sin", "scipy.special.jv"]
    assert found[0].query == "Computes the absolute value of each element"
    assert found[0].document.startswith(
        "torch.abs(input, *, out=None) -> Tensor\nArgs:\n     a tensor"
    )


def test_half_a_surrogate_pair_is_replaced():
    source = r'''
    def f():
        """Count the rows of a table.

        What \ud800 means nobody knows, but this is long enough.
        """
    '''
    (found,) = parse(source)
    assert "What ? means" in found.document


def test_a_file_that_does_not_parse_raises():
    with pytest.raises(SyntaxError):
        parse('"""text"""\nprint "python 2"\n')
    with pytest.raises((SyntaxError, ValueError)):
        list(documented_objects(b'"""\x00"""', "m"))


def test_private_modules_are_not_part_of_a_public_name():
    assert public_name("scipy.signal._peak_finding") == "scipy.signal"
    assert public_name("_pytest.config") == "_pytest.config"
