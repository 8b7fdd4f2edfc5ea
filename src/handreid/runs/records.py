"""The JSON files of run and sweep folders: a schema and a reader for each kind.

A file of another program or version, or one that was edited, raises one clear RunError here, instead of a traceback
where it is used.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from handreid.errors import RunError
from handreid.files import read_json

RUN_FORMAT, STAGE_FORMAT, SWEEP_FORMAT = 2, 1, 1
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]  # in this folder
Names = dict[FileName, Hash]
Number = int | float
Model = TypeVar("Model", bound=BaseModel)


class _Record(BaseModel):
    """The keys that are read; other keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class RunRecord(_Record):
    """run.json. `files` has the hash of recipe.yaml, and once the run is finished those of metrics and model."""

    format: Literal[2]
    manifest: str
    manifest_hash: str
    split_hash: str
    draws_hash: str
    photos_hash: str
    seed: int
    files: Names
    init_from: str | None = None
    init_from_hash: str | None = None
    notes: list[str] = []
    versions: dict[str, str] = {}
    command: list[str] = []


class StageRecord(_Record):
    """stage.json: the stage is finished. `files` are the hashes of its weights."""

    format: Literal[1]
    key: str
    number: int
    epochs: int
    files: Names


class CheckpointRecord(_Record):
    """checkpoint.json of a stage that is not finished: the hashes that each of its files may have, newest first."""

    format: Literal[1]
    files: dict[FileName, list[Hash]]


class TrialRecord(_Record):
    number: int
    setting: int
    name: FileName
    parameters: dict[str, str | Number]
    seed: int
    state: Literal["running", "finished", "stopped", "failed"]
    value: Number | None
    epoch: int | None
    done: int
    epochs: int
    seconds: Number
    message: str | None
    folder: Annotated[str, Field(pattern=r"^trials/[^/\\]+$")]


class SweepRecord(_Record):
    """sweep.json."""

    format: Literal[1]
    sweep: str
    about: str
    metric: str
    manifest: str
    manifest_hash: str
    split_hash: str
    seeds: list[int]
    short_names: dict[str, str]
    identity: dict[str, Any]
    trials: list[TrialRecord]


class EndedSweepRecord(SweepRecord):
    best: dict[str, Any] | None
    settled: list[dict[str, Any]]
    importance: dict[str, Any]


class ParametersRecord(_Record):
    """parameters.json of a stage."""

    learning: dict[str, int]
    in_all: int


class CurveRecord(_Record):
    """wise_ft.json of a stage."""

    best: float | None
    points: list[dict[str, float | None]]


def read_run(folder: Path) -> dict[str, Any]:
    """run.json. Raises RunError."""
    return _read(folder / "run.json", RunRecord, "train the run again")


def read_stage(folder: Path) -> dict[str, Any]:
    """stage.json of a finished stage. Raises RunError."""
    return _read(
        folder / "stage.json",
        StageRecord,
        f"remove {folder} and resume the run, which does this stage and those after it again",
    )


def read_checkpoint(folder: Path) -> dict[str, list[str]]:
    """The accepted hashes of each file of an unfinished stage; empty without checkpoint.json. Raises RunError."""
    path = folder / "checkpoint.json"
    if not path.exists():
        return {}
    files: dict[str, list[str]] = _read(
        path, CheckpointRecord, f"remove {folder} and resume the run, which does this stage and those after it again"
    )["files"]
    return files


def read_sweep(folder: Path, *, ended: bool = False) -> dict[str, Any]:
    """sweep.json; with `ended`, which requires its summary (best trial, settings). Raises RunError."""
    path = folder / "sweep.json"
    advice = "run the sweep again, into another folder"
    content = _read(path, SweepRecord, advice)
    if ended and "best" not in content:
        raise RunError(f"{folder} holds a sweep that has not ended; continue it with: handreid sweep --resume {folder}")
    return _checked(path, content, EndedSweepRecord if ended else SweepRecord, advice)


def read_parameters(folder: Path) -> dict[str, Any]:
    """parameters.json of a stage. Raises RunError."""
    return _read(folder / "parameters.json", ParametersRecord, "put back a copy of it as it was")


def read_curve(folder: Path) -> dict[str, Any]:
    """wise_ft.json of a stage. Raises RunError."""
    return _read(folder / "wise_ft.json", CurveRecord, "put back a copy of it as it was")


def checked(path: Path, content: Mapping[str, Any], model: type[Model], advice: str) -> Model:
    """The content of a file, validated. Raises RunError with what is wrong, and the `advice`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise RunError(f"{path} {_mismatch(content, error, model)}; {advice}") from None


def _read(path: Path, model: type[_Record], advice: str) -> dict[str, Any]:
    return _checked(path, read_json(path), model, advice)


def _checked(path: Path, content: dict[str, Any], model: type[_Record], advice: str) -> dict[str, Any]:
    checked(path, content, model, advice)
    return content


def _mismatch(content: Mapping[str, Any], error: ValidationError, model: type[BaseModel]) -> str:
    if "format" in model.model_fields:
        (reads,) = get_args(model.model_fields["format"].annotation)
        if content.get("format") != reads:
            was = f"has format {content['format']!r}" if "format" in content else "says no format"
            return f"was written by another version of handreid (it {was}, and this one reads {reads})"
    problem = error.errors()[0]
    return f"is not as handreid writes it ({'.'.join(map(str, problem['loc']))}: {problem['msg']})"
