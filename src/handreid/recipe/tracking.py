"""Experiment trackers that a run is logged to, by name or with keys.

Tracking is not part of an experiment: a run may be resumed with other trackers, or without.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from handreid.errors import RecipeError
from handreid.recipe.base import Value


class MLflow(Value):
    """A run of MLflow, in a file beside the run folder or on a server."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """Address of a server, `http://host:5000`, or of a store, `sqlite:///runs.db`. null is MLFLOW_TRACKING_URI, else
    the file `mlflow.db` beside the run folder, which the rungs of a ladder share."""
    experiment: str | None = Field(None, min_length=1)
    """Name of the experiment; null is MLFLOW_EXPERIMENT_NAME, else the name of the folder that holds the run folder."""
    model: bool = False
    """Whether the finished model is sent too."""

    @field_validator("uri")
    @classmethod
    def _is_an_address_without_a_password(cls, uri: str | None) -> str | None:
        if uri is None:
            return uri
        if not urlsplit(uri).scheme:
            raise ValueError("an address begins with http://, https:// or sqlite:///")
        if urlsplit(uri).password is not None:
            raise ValueError(
                "the address is stored in the run folder: remove the password, and set MLFLOW_TRACKING_URI, "
                "or for a server MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri


class TensorBoard(Value):
    """Event files of TensorBoard."""

    kind: Literal["tensorboard"] = "tensorboard"
    folder: str | None = Field(None, min_length=1)
    """Folder in which a folder with the run's name is created; null is `tensorboard` in the run folder, so that
    `tensorboard --logdir ladder` shows every rung."""


class Wandb(Value):
    """A run of Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: str | None = Field(None, min_length=1)
    """Name of the project; null is WANDB_PROJECT, else the name of the folder that holds the run folder."""
    entity: str | None = Field(None, min_length=1)
    """User or team; null is WANDB_ENTITY, else the account's default."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """`offline` writes to `wandb` in the run folder, for `wandb sync`; `auto` is WANDB_MODE, else online if a key is
    configured and offline if not. handreid never asks for a key."""
    model: bool = False
    """Whether the finished model is sent too."""


Tracker = Annotated[MLflow | TensorBoard | Wandb, Field(discriminator="kind")]
_SHORT = {"mlflow": "uri", "tensorboard": "folder", "wandb": "project"}
_EXAMPLES = "mlflow, mlflow=http://localhost:5000, tensorboard, tensorboard=FOLDER, wandb, wandb=PROJECT, or none"


def with_keys(value: Any) -> Any:
    """One tracker or several, as a list; a name is a tracker with its defaults."""
    if value is None:
        return ()
    items = [value] if isinstance(value, dict | str) else value
    if not isinstance(items, list | tuple):
        return items
    return [{"kind": item} if isinstance(item, str) else item for item in items]


def check_one_each(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    """Raises ValueError for two equal trackers, and for two of wandb, which can have one run at a time."""
    for number, tracker in enumerate(trackers):
        if any(tracker == earlier or tracker.kind == earlier.kind == "wandb" for earlier in trackers[:number]):
            raise ValueError(f"{tracker.kind} is listed twice; list it once")
    return trackers


def read_trackers(texts: Sequence[str]) -> tuple[Tracker, ...]:
    """`mlflow`, `mlflow=http://host:5000`, several or separated by commas, as on a command line. Raises RecipeError."""
    names = [part.strip() for text in texts for part in text.split(",")]
    if names == ["none"]:
        return ()
    trackers: tuple[Tracker, ...] = tuple(map(_read_tracker, names))
    try:
        return check_one_each(trackers)
    except ValueError as error:
        raise RecipeError(f"--track {','.join(names)}: {error}") from None


def _read_tracker(text: str) -> Tracker:
    kind, equals, where = text.partition("=")
    if kind not in _SHORT:
        raise RecipeError(f"--track {text}: {kind!r} is not one of {', '.join(_SHORT)}; write {_EXAMPLES}")
    try:
        tracker: Tracker = TypeAdapter(Tracker).validate_python(
            {"kind": kind, **({_SHORT[kind]: where} if equals else {})}
        )
    except ValidationError as error:
        reasons = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
        raise RecipeError(f"--track {kind}={where}: {reasons}; write {_EXAMPLES}") from None
    return tracker
