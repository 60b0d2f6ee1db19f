"""Images of several sources, one after another."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int
from PIL import Image

from infomax.data.images import Images, Shrink


@dataclass(eq=False)
class Joined(Images):
    """The images of several sources as one."""

    parts: Sequence[Images]
    labels: np.ndarray | None
    classes: list[str]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @cached_property
    def _ends(self) -> Int[np.ndarray, " parts"]:
        return np.cumsum([len(part) for part in self.parts])

    def _find(self, index: int) -> tuple[int, int]:
        """The part that an image is in, and its index there."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - (int(self._ends[part - 1]) if part else 0)

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return self.parts[part].name(inner)

    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint() for part in self.parts).encode()).hexdigest()[:12]

    def state(self, index: Int[np.ndarray, " n"]) -> str:
        owner, known = np.searchsorted(self._ends, index, side="right"), hashlib.sha256(b"joined")
        for part in np.unique(owner):
            inner = index[owner == part] - (self._ends[part - 1] if part else 0)
            known.update(f"{np.flatnonzero(owner == part).tolist()} {self.parts[part].state(inner)}".encode())
        return known.hexdigest()

    def open(self, index: int, shrink: Shrink | None = None) -> Image.Image:
        part, inner = self._find(index)
        return self.parts[part].open(inner, shrink)
