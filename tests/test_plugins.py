"""Code of the user's own, by name."""

import sys

import pytest

from embedtrain.errors import UserError
from embedtrain.plugins import IMPORTED, find_reference, load_plugin

GROUP = "embedtrain.sources"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder in which two modules and a package with an entry point are installed."""
    (tmp_path / "shop_data.py").write_text("class Kind:\n    value = 3\n")
    (tmp_path / "shop_broken.py").write_text("import shop_absent\n")
    (tmp_path / "shop_other.py").write_text("")
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[embedtrain.sources]\ngoods = shop_data:Kind\ngone = shop_gone.data:Kind\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shop_")]:
        del sys.modules[name]
    for name in [name for name in IMPORTED if name.startswith(("shop_", "goods"))]:
        del IMPORTED[name]


def test_a_name_with_a_colon_is_imported_and_nothing_else(site):
    kind = load_plugin("shop_data:Kind", GROUP)
    assert kind.value == load_plugin("shop_data:Kind.value", GROUP) == 3
    assert IMPORTED["shop_data:Kind"] == str(site / "shop_data.py")
    assert "shop_other" not in sys.modules


def test_an_installed_package_lists_what_it_brings(site):
    assert find_reference("goods", GROUP) == "shop_data:Kind"
    assert "shop_data" not in sys.modules
    assert load_plugin("goods", GROUP).value == 3
    assert find_reference("goods", "embedtrain.tasks") is None


def test_the_working_folder_is_looked_into_last(site, monkeypatch):
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(site)])
    monkeypatch.chdir(site)
    assert load_plugin("shop_data:Kind", GROUP).value == 3
    assert sys.path[-1] == str(site)


@pytest.mark.parametrize(
    "path", ["pairs.jsonl", "org/name", "squad", "C:/pairs", "a:b:c", "python_docs"]
)
def test_paths_and_ids_are_no_names_of_code(path):
    assert find_reference(path, GROUP) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shop_none.data:Kind", r"^shop_none.data:Kind needs shop_none, which is not installed\."),
        ("shop_data.deep:Kind", r"needs shop_data.deep, which|cannot be imported .*not a package"),
        ("gone", r"^gone needs shop_gone, which is not installed\."),
        ("shop_broken:Kind", r"cannot be imported \(ModuleNotFoundError: .*shop_absent"),
        ("shop_data:Kinds", r"is not there: shop_data has no Kinds\. Correct the name\.$"),
        ("__main__:Kind", r"is not there: __main__ has no Kind\. Put it into a module"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_said_in_one_line(site, name, message):
    with pytest.raises(UserError, match=message) as caught:
        load_plugin(name, GROUP)
    assert "\n" not in str(caught.value)
