"""Work that is killed before one of its file operations, by SIGKILL, in a process of its own."""

import os
import signal
import sys
from collections.abc import Sequence
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


def work(number: int, below: str, recipes: Recipe | Sequence[Recipe] | None, photos: Path | None, out: Path) -> None:
    """Trains a recipe, climbs several, or goes on with none."""
    sys.addaudithook(_Hook(number, below))
    if recipes is None or isinstance(recipes, Recipe):
        train(recipes, photos, out, resume=recipes is None)
    else:
        run_ladder(recipes, photos, out)


class _Hook:
    """Counts what is opened to be written, made, renamed or removed below a folder."""

    def __init__(self, number: int, below: str) -> None:
        self.left, self.below = number, below

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and str(arguments[0]).startswith(self.below):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
