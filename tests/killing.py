"""Work that is killed before one of its file operations, by SIGKILL, in a process of its own; and what kills leave."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from handreid.recipe import Recipe
from handreid.training.train import train
from handreid.workflows.ladder import run_ladder
from tests.forks import fork


def killed_at(number: int, below: Path, *asked: Any) -> bool:
    """Does `asked` (see `work`), killed before the file operation of this number below a folder; whether it ended
    before that.
    """
    child = fork(work, number, str(below), *asked)
    child.join(300)
    assert child.exitcode in (0, -signal.SIGKILL), f"the work failed: {child.exitcode}"
    return child.exitcode == 0


def left_by_kills(numbers: Collection[int], below: Path, left: Path, *asked: Any) -> None:
    """Does `asked` once (see `work`). Before the file operations of these numbers below a folder, copies it to
    `left`/NUMBER: what a kill at that moment would leave.
    """
    child = fork(copying_work, numbers, str(below), left, *asked)
    child.join(300)
    assert child.exitcode == 0, f"the work failed: {child.exitcode}"


def work(number: int, below: str, recipes: Recipe | Sequence[Recipe] | None, photos: Path | None, out: Path) -> None:
    """Trains a recipe, climbs several, or goes on with none."""

    def kill(reached: int) -> None:
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(_Hook(below, kill))
    _do(recipes, photos, out)


def copying_work(
    numbers: Collection[int],
    below: str,
    left: Path,
    recipes: Recipe | Sequence[Recipe] | None,
    photos: Path | None,
    out: Path,
) -> None:
    def copy(reached: int) -> None:
        if reached in numbers:
            if Path(below).exists():
                shutil.copytree(below, left / str(reached))
            else:
                (left / str(reached)).mkdir(parents=True)

    sys.addaudithook(_Hook(below, copy))
    _do(recipes, photos, out)


def _do(recipes: Recipe | Sequence[Recipe] | None, photos: Path | None, out: Path) -> None:
    if recipes is None or isinstance(recipes, Recipe):
        train(recipes, photos, out, resume=recipes is None)
    else:
        run_ladder(recipes, photos, out)


class _Hook:
    """Counts what is opened to be written, made, renamed or removed below a folder."""

    def __init__(self, below: str, before: Callable[[int], None]) -> None:
        self.number, self.below, self.before = 0, below, before

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and str(arguments[0]).startswith(self.below):
            self.before(self.number)
            self.number += 1
