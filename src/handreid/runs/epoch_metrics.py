"""metrics.jsonl: one line per epoch, each with a checksum.

* The line of an epoch is synced to the disk before that epoch's checkpoint. So if there is a checkpoint without its
  line, the file has lost the line.
* A run that was killed may leave a last line without a line break, which counts as not written. Any other line that was
  changed is an error: figures and comparisons take their numbers from this file.
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
    """The lines in order, without their checksums; none if the file does not exist. Raises RunError.

    For a finished run the whole file is compared with its hash in run.json, so no line can be missing.
    """
    noted = run.facts["files"].get(run.metrics.name) if run.finished else None
    if noted or (run.finished and run.metrics.exists()):
        check_noted(run.metrics, noted=noted, advice="put back a copy of it as it was")
    try:
        *lines, _ = run.metrics.read_bytes().split(b"\n")  # after the last line break: nothing, or a partial line
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{run.metrics} cannot be read: {error.strerror}") from None
    entries = [_read(run, number, line) for number, line in enumerate(lines, 1)]
    _check_order(run, entries)
    return entries


def append_metrics(run: Run, entry: Mapping[str, Any]) -> None:
    """Appends a line and syncs it to the disk. Raises OutputError."""
    try:
        with run.metrics.open("ab") as file:
            file.write(_line(entry).encode())
        sync(run.metrics)
    except OSError as error:
        raise OutputError(f"{run.metrics} cannot be written: {error.strerror}") from None


def truncate_metrics(run: Run, stage: int, epochs: int) -> None:
    """Removes the lines of epochs that a resumed stage will repeat, and a partial last line.

    Raises RunError if the line of the last epoch that is not repeated is missing.
    """
    if not run.metrics.exists() and not epochs:
        return
    entries = [entry for entry in read_metrics(run) if (entry["stage"], entry["epoch"]) <= (stage, epochs)]
    if epochs and (not entries or (entries[-1]["stage"], entries[-1]["epoch"]) != (stage, epochs)):
        raise RunError(
            f"{run.metrics} has no line of epoch {epochs} of stage {stage}, which the checkpoint includes: restore a "
            "copy of it, or train the run again"
        )
    write_text(run.metrics, "".join(map(_line, entries)))


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
