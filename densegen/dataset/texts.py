"""Many texts as one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self, overload

import numpy as np

from densegen.arrays import Int64, UInt8

__all__ = ["Texts"]


class Texts(Sequence[str]):
    """Many texts in one piece of memory: a tenth of what as many ``str`` take.

    data : their bytes, UTF-8, end to end
    offsets : (n + 1,) int64 into them
    """

    def __init__(self, data: UInt8, offsets: Int64) -> None:
        self.data, self.offsets = data, offsets

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        if len(parts) == 1:
            return parts[0]
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(np.concatenate(data), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Texts: ...
    def __getitem__(self, number: int | slice) -> str | Texts:
        if isinstance(number, slice):
            first, last, step = number.indices(len(self))
            if step != 1:
                return Texts.of([self[place] for place in range(first, last, step)])
            return Texts(self.data, self.offsets[first : max(first, last) + 1])
        if not -len(self) <= number < len(self):
            raise IndexError(f"text {number} of {len(self):,}")
        start, stop = self.offsets[number % len(self) :][:2]
        return bytes(self.data[start:stop]).decode()

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))
