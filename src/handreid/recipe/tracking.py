"""Experiment trackers that a run is logged to, by name or with keys.

Tracking is no part of what an experiment is: a run may be resumed with other trackers, or without.
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


def with_keys(given: Any) -> Any:
    """One tracker or several, as a list; a name is a tracker with its defaults."""
    if given is None:
        return ()
    several = [given] if isinstance(given, dict | str) else given
    if not isinstance(several, list | tuple):
        return several
    return [{"kind": one} if isinstance(one, str) else one for one in several]


def check_one_each(trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
    """Raises ValueError for the same place twice, and for two of wandb, which can have one run at a time."""
    for number, one in enumerate(trackers):
        if any(one == other or one.kind == other.kind == "wandb" for other in trackers[:number]):
            raise ValueError(f"{one.kind} is listed twice; list it once")
    return trackers


def read_trackers(texts: Sequence[str]) -> tuple[Tracker, ...]:
    """`mlflow`, `mlflow=http://host:5000`, several or separated by commas, as on a command line. Raises RecipeError."""
    named = [part.strip() for text in texts for part in text.split(",")]
    if named == ["none"]:
        return ()
    found: tuple[Tracker, ...] = tuple(map(_read_tracker, named))
    try:
        return check_one_each(found)
    except ValueError as error:
        raise RecipeError(f"--track {','.join(named)}: {error}") from None


def _read_tracker(text: str) -> Tracker:
    kind, equals, where = text.partition("=")
    if kind not in _SHORT:
        raise RecipeError(f"--track {text}: {kind!r} is not one of {', '.join(_SHORT)}; write {_EXAMPLES}")
    try:
        found: Tracker = TypeAdapter(Tracker).validate_python(
            {"kind": kind, **({_SHORT[kind]: where} if equals else {})}
        )
    except ValidationError as error:
        told = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        raise RecipeError(f"--track {kind}={where}: {told}; write {_EXAMPLES}") from None
    return found
