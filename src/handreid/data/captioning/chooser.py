"""Choices among wordings, the same on every machine."""

from collections.abc import Sequence
from typing import TypeVar

from handreid.data.draws import hash_key

Item = TypeVar("Item")


class Chooser:
    """A run of choices that depends on seed, photo and the number of the wording only.

    The choices are the digits of a SHA-256. Its 256 bits are enough for a sentence; should they end, it is hashed on.
    """

    def __init__(self, seed: int, photo: str, wording: int) -> None:
        self._key = hash_key(seed, "caption", wording, photo)
        self._left, self._room = int(self._key, 16), 2**256

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1."""
        if self._room < count << 32:
            self._key = hash_key(0, "caption", 0, self._key)
            self._left, self._room = int(self._key, 16), 2**256
        self._left, number = divmod(self._left, count)
        self._room //= count
        return number

    def one(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def chance(self, share: float) -> bool:
        """True for this share of choices, to three digits."""
        return self.below(1000) < round(1000 * share)

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]
