"""What is asked of every tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Status = Literal["finished", "failed", "killed"]


@runtime_checkable
class TrackingBackend(Protocol):
    """A run in a tracker that is open for writing. Whatever goes wrong is raised as the tracker's library raises it."""

    @property
    def id(self) -> str | None:
        """The tracker's name for the run; with it the run is opened again."""
        ...

    @property
    def where(self) -> str:
        """Where a person finds it."""
        ...

    def last(self) -> tuple[int, int] | None:
        """Stage and epoch of the last line that is there; None where that cannot be asked."""
        ...

    def settings(self, named: Mapping[str, Any], text: str, *, again: bool) -> None:
        """The recipe and what the run rests on, flat; and the recipe as it is written. They are there if `again`."""
        ...

    def numbers(self, named: Mapping[str, float], step: int) -> None:
        """Of an epoch, counted over the whole run."""
        ...

    def tested(self, named: Mapping[str, float], step: int) -> None:
        """Of an evaluation, made after so many epochs."""
        ...

    def file(self, name: str, content: bytes) -> None: ...

    def model(self, path: Path) -> None: ...

    def close(self, status: Status) -> None: ...
