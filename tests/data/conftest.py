import pytest


@pytest.fixture
def install():
    """Write a package into a folder as pip leaves it: install(folder, name, version, {path: text})."""

    def install(site, name, version, files):
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
        )
        for path, text in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, "utf-8")
        (info / "RECORD").write_text(
            "".join(f"{path},,\n" for path in [*files, "../bin/tool"]), "utf-8"
        )

    return install
