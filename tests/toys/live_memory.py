"""How many bytes of tensors are alive at once, counted operation by operation."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts what operations inside made and nobody has let go of; ``peak`` is the most bytes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        given = {leaf.untyped_storage()._cdata for leaf in tensors(arguments)}
        result = function(*arguments, **(settings or {}))
        for leaf in tensors(result):
            storage = leaf.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self.known or key in given:
                continue
            self.known[key] = size
            self.now += size
            weakref.finalize(storage, self._gone, key)
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key)


def tensors(values: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
