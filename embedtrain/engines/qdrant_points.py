"""Points in a local folder of Qdrant, which its client pickles: read as points, and nothing else that a pickle may name."""

import io
import pickle
from enum import Enum
from typing import Any

from pydantic import BaseModel

MODELS = "qdrant_client.http.models."


class PointReader(pickle.Unpickler):
    """Makes points and what they hold; a pickle that names anything else is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        """Return a form of Qdrant's.

        Raises:
            UnpicklingError: If the pickle names another thing.
        """
        if module.startswith(MODELS) and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and issubclass(found, BaseModel | Enum):
                return found
        raise pickle.UnpicklingError(f"a pickle that names {module}.{name}, which no point holds")


class PointPickles:
    """Stands for the module ``pickle`` in Qdrant's client."""

    dumps = staticmethod(pickle.dumps)

    @staticmethod
    def loads(content: bytes) -> Any:  # noqa: ANN401 - as pickle has it
        """Read a point."""
        return PointReader(io.BytesIO(content)).load()
