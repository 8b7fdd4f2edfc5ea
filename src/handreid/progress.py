"""Progress of long steps: bars on a terminal, lines at intervals elsewhere, nothing when used as a library.

Modules below the command line take a `Progress` and never print.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

from handreid import messages

Advance = Callable[[int], None]
EpochListener = Callable[[Mapping[str, Any]], None]  # gets each epoch's line of metrics.jsonl once it is written


@runtime_checkable
class Progress(Protocol):
    def step(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A long step of `total` units; the context yields a function to call with the number of further units done."""
        ...

    def say(self, line: str) -> None: ...


class NullProgress:
    def step(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        return nullcontext(_ignore)

    def say(self, line: str) -> None:
        pass


class Terminal:
    """Bars on standard error when it is a terminal, else a line at the end of each step and every `every` seconds."""

    def __init__(self, every: float = 10.0) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.every = every

    def say(self, line: str) -> None:
        self.console.print(messages.lines(line), soft_wrap=True)

    def step(self, what: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        if not total:  # nothing to wait for, nothing to report
            return nullcontext(_ignore)
        return self._bar(what, total, unit) if self.console.is_terminal else self._lines(what, total, unit)

    @contextmanager
    def _bar(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        what = messages.line(what)
        rate = TextColumn(f"{{task.fields[rate]}} {unit}/s", markup=False)
        columns = (BarColumn(24), MofNCompleteColumn(), rate, TimeElapsedColumn(), TimeRemainingColumn())
        began, done = time.monotonic(), 0
        with Bars(
            TextColumn("{task.description}", markup=False), *columns, console=self.console, transient=True
        ) as bars:
            task = bars.add_task(what, total=total, rate="-")

            def advance(count: int) -> None:
                nonlocal done
                done += count
                bars.update(task, completed=done, rate=f"{done / max(time.monotonic() - began, 1e-9):,.0f}")

            yield advance
        self.say(_summary(what, done, unit, time.monotonic() - began))

    @contextmanager
    def _lines(self, what: str, total: int, unit: str) -> Iterator[Advance]:
        began = printed = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, printed
            done += count
            clock = time.monotonic()
            if clock - printed >= self.every and done < total:
                printed = clock
                rest = (total - done) * (clock - began) / max(done, 1)
                self.say(f"{what}: {done:,} of {total:,} {unit}, {done / (clock - began):,.0f}/s, {rest:,.0f} s left")

        yield advance
        self.say(_summary(what, done, unit, time.monotonic() - began))


def default_progress() -> Progress:
    return Terminal() if sys.stderr is not None else NullProgress()


def _summary(what: str, done: int, unit: str, seconds: float) -> str:
    return f"{what}: {done:,} {unit} in {seconds:,.1f} s ({done / max(seconds, 1e-9):,.0f}/s)"


def _ignore(_: int) -> None:
    pass
