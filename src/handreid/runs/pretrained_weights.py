"""The weights file that a run started from: its hash is in run.json, and a file with another hash is not read.

This matters because a run folder may come from elsewhere, and its recipe may name any file of this machine.
"""

from pathlib import Path

from handreid.build import build_towers
from handreid.errors import RunError, WeightsError
from handreid.files import TOWERS, file_hash
from handreid.messages import shown
from handreid.models.clip import ClipTowers
from handreid.models.clip_weights import weights_file
from handreid.models.embedded_weights import EMBEDDED
from handreid.models.exported_towers import is_exported
from handreid.models.text import TextEncoder
from handreid.recipe import Recipe
from handreid.runs.folder import Run, check_finished, check_noted, open_run

_NOTED = "weights_hash"


def weights_facts(recipe: Recipe) -> dict[str, str]:
    """The hash of the weights file, for run.json; empty for pretrained tags of open_clip and random towers."""
    path = _file(recipe)
    return {} if path is None else {_NOTED: _hash(path)}


def check_weights(run: Run, recipe: Recipe) -> None:
    """Raises RunError if the recipe names a weights file that is not the one the run started from."""
    path = _file(recipe)
    if path is None:
        return
    noted = run.facts.get(_NOTED)
    if noted is None:
        raise RunError(
            f"{run.folder}: its recipe names the weights file {shown(str(path), 200)}, but its run.json has no hash of "
            "it, so it cannot be verified and is not read"
        )
    if noted != _hash(path):
        raise RunError(
            f"{run.folder}: {shown(str(path), 200)} is not the weights file that the run started from (SHA-256 "
            f"{_hash(path)[:16]}, in run.json {str(noted)[:16]}): restore {_whence(recipe)}, or start another run"
        )


def weights_run(recipe: Recipe) -> Run | None:
    """The run whose towers the recipe starts from; None for other weights. Raises RunError if it is unfinished, or if
    the file was changed.
    """
    path = _file(recipe)
    if path is None or path.name != TOWERS or not (path.parent / "run.json").is_file():
        return None
    run = open_run(path.parent)
    check_finished(run)
    check_noted(path, noted=run.facts["files"].get(path.name), advice="copy it again, or train the run again")
    return run


def exported_file(recipe: Recipe) -> Path | None:
    """The file of exported towers that the recipe starts from, such as the package's; None for other weights."""
    path = _file(recipe)
    return path if path is not None and is_exported(path) else None


def towers_of(run: Run, recipe: Recipe | None = None) -> ClipTowers:
    """The towers that a run started from; `recipe` is the run's own by default. If a finished run has trained the text
    tower, its trained weights are loaded. Raises RunError, WeightsError.
    """
    recipe = recipe or run.recipe
    check_weights(run, recipe)
    towers = build_towers(recipe)
    take_text(towers.text, run)
    return towers


def take_text(text: TextEncoder, run: Run) -> bool:
    """Loads the text tower's weights of a finished run into `text`; False if the run has not trained it.

    Raises RunError if the file was changed, and WeightsError if it is of another tower.
    """
    noted = run.facts["files"].get(run.text.name) if run.finished else None
    if noted is None:
        return False
    advice = "copy it again, or train the run again"
    check_noted(run.text, noted=noted, advice=advice)
    text.read(run.text)
    return True


def _whence(recipe: Recipe) -> str:
    return "the version of handreid that had it" if recipe.model.backbone.weights == EMBEDDED else "that file"


def _file(recipe: Recipe) -> Path | None:
    backbone = recipe.model.backbone
    return weights_file(backbone.name, backbone.weights, tagged=backbone.config is None)


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from None
