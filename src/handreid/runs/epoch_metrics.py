"""metrics.jsonl: a line per epoch, each with a checksum of its own.

* The line of an epoch is on the disk before the checkpoint of that epoch is, so a checkpoint without its line is a file
  that lost it.
* A run that was killed may have left a line without an end, which counts as not written. Every other line that is not
  as it was written is an error: numbers that are drawn and compared come from here.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any

from handreid.errors import OutputError, RunError
from handreid.files import CHECKSUM, checksum, sync, write_text
from handreid.runs.folder import Run, check_noted

_DIGITS = 16  # of SHA-256, in hex


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """The lines in their order, without their checksums; none where there is no such file. Raises RunError.

    Those of a finished run are all that it ever had, which run.json proves.
    """
    noted = run.facts["files"].get(run.metrics.name) if run.finished else None
    if noted or (run.finished and run.metrics.exists()):
        check_noted(run.metrics, noted=noted, advice="put back a copy of it as it was")
    try:
        *lines, _ = run.metrics.read_bytes().split(b"\n")  # after the last end of line: nothing, or half a line
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{run.metrics} cannot be read: {error.strerror}") from None
    entries = [_read(run, number, line) for number, line in enumerate(lines, 1)]
    _check_order(run, entries)
    return entries


def append_metrics(run: Run, entry: Mapping[str, Any]) -> None:
    """Adds a line, which is on the disk when this returns. Raises OutputError."""
    try:
        with run.metrics.open("ab") as file:
            file.write(_line(entry).encode())
        sync(run.metrics)
    except OSError as error:
        raise OutputError(f"{run.metrics} cannot be written: {error.strerror}") from None


def truncate_metrics(run: Run, stage: int, epochs: int) -> None:
    """Drops the lines of epochs that a resumed stage will run again, and a half-written last line.

    Raises RunError when the line of the last epoch that it will not run again is missing.
    """
    if not run.metrics.exists() and not epochs:
        return
    kept = [entry for entry in read_metrics(run) if (entry["stage"], entry["epoch"]) <= (stage, epochs)]
    if epochs and (not kept or (kept[-1]["stage"], kept[-1]["epoch"]) != (stage, epochs)):
        raise RunError(
            f"{run.metrics} has no line of epoch {epochs} of stage {stage}, which the checkpoint includes: restore a "
            "copy of it, or train the run again"
        )
    write_text(run.metrics, "".join(map(_line, kept)))


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps({**entry, CHECKSUM: checksum(entry)[:_DIGITS]}) + "\n"


def _read(run: Run, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        stated = entry.pop(CHECKSUM, None)
        if stated == checksum(entry)[:_DIGITS] and all(isinstance(entry[key], int) for key in ("stage", "epoch")):
            return dict(entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise RunError(
        f"{run.metrics} line {number} was changed, damaged, or written by an older version: restore a "
        "copy of the file, or train the run again"
    )


def _check_order(run: Run, entries: list[dict[str, Any]]) -> None:
    for number, (before, after) in enumerate(itertools.pairwise(entries), 2):
        if (before["stage"], before["epoch"]) >= (after["stage"], after["epoch"]):
            raise RunError(
                f"{run.metrics} line {number} is of stage {after['stage']}, epoch {after['epoch']}, after one of stage "
                f"{before['stage']}, epoch {before['epoch']}: something else has written to it; restore a copy of "
                "it, or train the run again"
            )
