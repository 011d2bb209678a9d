"""mkdocs hook: pages that are made from the code at each build, so that they cannot drift from it.

``make docs`` runs it. It needs no network.
"""

from collections.abc import Mapping

from docs_cli import cli_page
from docs_keys import keys_page
from docs_recipes import page_name, recipe_folders, recipe_page, title_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def made_pages() -> Mapping[str, str]:
    """Return every made page by its place in the documentation."""
    pages = {page_name(folder): recipe_page(folder) for folder in recipe_folders()}
    return pages | {"reference/commands.md": cli_page(), "reference/keys.md": keys_page()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the folders of recipes in the navigation."""
    folders = recipe_folders()
    names = ["All recipes", *map(title_of, folders[1:])]
    pages = [{name: page_name(folder)} for name, folder in zip(names, folders, strict=True)]
    config.nav = [{"Recipes": pages} if entry == "Recipes" else entry for entry in config.nav or ()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages."""
    for place, text in made_pages().items():
        files.append(File.generated(config, place, content=text))
    return files
