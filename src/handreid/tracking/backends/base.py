"""The interface of every tracker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Status = Literal["finished", "failed", "killed"]


@runtime_checkable
class TrackingBackend(Protocol):
    """A run in a tracker, open for writing. Errors of the tracker's library are passed on unchanged."""

    @property
    def id(self) -> str | None:
        """The run's id in the tracker, used to open it again."""
        ...

    @property
    def where(self) -> str:
        """Address or folder of the run, for the user."""
        ...

    def last(self) -> tuple[int, int] | None:
        """Stage and epoch of the last entry in the tracker; None where this cannot be queried."""
        ...

    def settings(self, values: Mapping[str, Any], text: str, *, again: bool) -> None:
        """Recipe and facts of the run as flat `values`, the recipe as YAML `text`. `again`: they were sent before."""
        ...

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of an epoch; `step` is its number within the whole run."""
        ...

    def tested(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of an evaluation after `step` epochs."""
        ...

    def file(self, name: str, content: bytes) -> None: ...

    def model(self, path: Path) -> None: ...

    def close(self, status: Status) -> None: ...


def non_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without empty lists and mappings: trackers that keep one value per name have none for them."""
    return {name: value for name, value in values.items() if value not in ([], {})}
