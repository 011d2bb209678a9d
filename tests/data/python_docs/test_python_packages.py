import platform
from pathlib import Path

import pytest

from embedtrain.data.python_docs.python_packages import (
    installed_packages,
    is_wanted,
    module_name,
    standard_library,
)


def test_packages_come_in_the_order_of_their_names_with_their_modules(tmp_path, install):
    install(
        tmp_path, "Zeta_Pack", "2.0", {"zeta/b.py": "", "zeta/__init__.py": "", "zeta/d.txt": ""}
    )
    install(tmp_path, "alpha", "1", {"alpha.py": "", "tests/test_alpha.py": ""})
    install(tmp_path, "embedtrain", "1", {"embedtrain/a.py": ""})
    packages = installed_packages([str(tmp_path)])
    assert [(each.name, each.version) for each in packages] == [
        ("alpha", "1"),
        ("zeta-pack", "2.0"),
    ]
    assert packages[0].modules() == [("alpha", tmp_path / "alpha.py")]
    expected = [("zeta", tmp_path / "zeta/__init__.py"), ("zeta.b", tmp_path / "zeta/b.py")]
    assert packages[1].modules() == expected


def test_of_two_versions_the_first_on_the_path_is_read(tmp_path, install):
    install(tmp_path / "one", "pack", "1", {"pack.py": ""})
    install(tmp_path / "two", "pack", "2", {"pack.py": ""})
    (package,) = installed_packages([str(tmp_path / "two"), str(tmp_path / "one")])
    assert package.version == "2"
    assert package.modules() == [("pack", tmp_path / "two/pack.py")]


def test_a_package_without_a_record_has_no_modules(tmp_path, install):
    install(tmp_path, "pack", "1", {"pack.py": ""})
    (tmp_path / "pack-1.dist-info/RECORD").unlink()
    assert installed_packages([str(tmp_path)])[0].modules() == []


@pytest.mark.parametrize(
    "path", ["a/b.py", "a/__init__.py", "a/_private.py", "a/latest.py", "contest.py"]
)
def test_a_module_is_wanted(path):
    assert is_wanted(path)


@pytest.mark.parametrize(
    "path",
    [
        "a/tests/b.py", "a/test_b.py", "a/b_test.py", "a/conftest.py", "pip/_vendor/rich/box.py",
        "a/third_party/b.py", "a/extern/b.py", "a/b_pb2.py", "setup.py", "a/b.pyi", "a/b.so", "../bin/a.py",
        "a-1.dist-info/b.py", "a/examples/b.py", "torch/testing/a.py",
    ],
)  # fmt: skip
def test_tests_vendored_copies_and_generated_code_are_not(path):
    assert not is_wanted(path)


def test_a_package_is_named_by_its_folder():
    assert module_name("a/b/__init__.py") == "a.b"
    assert module_name("a/c.py") == "a.c"
    assert module_name("c.py") == "c"


def test_the_standard_library_is_a_package_of_its_own():
    (python,) = (each for each in installed_packages() if each.name == "python")
    assert python.version == platform.python_version()
    names = {name for name, _ in standard_library()}
    assert {"json/decoder.py", "heapq.py"} <= names
    assert not any(Path(name).parts[0] in {"site-packages", "test", "idlelib"} for name in names)
