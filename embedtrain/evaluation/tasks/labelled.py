"""Texts with labels, and scikit-learn, which what is done with them needs."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from embedtrain.errors import UserError, missing_extra
from embedtrain.evaluation.tasks.files import item_ids, read_rows


class LabelledTexts:
    """The rows {text, label} of a file."""

    def __init__(self, path: Path) -> None:
        rows = read_rows(path, {"text": str, "label": (str, int)})
        self.path = path
        self.ids = item_ids(path, rows)
        self.texts = [row["text"] for row in rows]
        self.by_id = dict(zip(self.ids, self.texts, strict=True))
        self.labels = [str(row["label"]) for row in rows]
        if len(set(self.labels)) < 2:
            raise UserError(path, "has only one label", got=self.labels[0], cure="Give two or more")

    def __len__(self) -> int:
        return len(self.texts)


def scikit_learn(module: str, purpose: str) -> ModuleType:
    """Import a module of scikit-learn.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise missing_extra("scikit-learn", "evaluation", purpose) from error
