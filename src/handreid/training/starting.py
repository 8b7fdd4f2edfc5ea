"""A run that begins with the encoder of another: which, whether it may, and its weights.

Whom the other run was trained on, or chosen by, must be no one that this one tests with, nor those that it trained on
be validated with: a leak through the parent looks like progress. People count, not photos.
"""

from pathlib import Path

import torch
from torch import nn

from handreid.errors import HandreidError, ProtocolError, RunError
from handreid.files import file_hash
from handreid.models.backbone import ADDED, Backbone
from handreid.models.embedder import Embedder
from handreid.recipe import Recipe
from handreid.training.material import Material, read_material
from handreid.training.runs import Run, check_finished, finished_model, open_run


def parent_of(recipe: Recipe, out: Path) -> Run | None:
    """The run that `start` names: one that lies beside `out`, else a folder. Raises RunError when it is unfinished."""
    if recipe.start is None:
        return None
    beside = out.absolute().parent / recipe.start
    try:
        run = open_run(beside if (beside / "run.json").is_file() else Path(recipe.start))
    except RunError:
        raise RunError(
            f"start: {recipe.start!r} is neither a run folder nor the name of one beside {out}; train it first"
        ) from None
    if run.folder.absolute() == out.absolute():
        raise RunError(f"start: {recipe.start!r} is this run itself; give --out another name")
    check_finished(run)
    return run


def start_facts(parent: Run | None) -> dict[str, str]:
    """What a run says of the one that it began with."""
    return (
        {}
        if parent is None
        else {"start": str(parent.folder.absolute()), "start_hash": file_hash(finished_model(parent))}
    )


def check_strangers(parent: Run, material: Material) -> list[str]:
    """Notes; raises ProtocolError when a run in the parent's line was trained on people of this one's tests."""
    split = material.split
    tested, validated = (
        {split.subjects[row] for draw in draws for row in draw.query} for draws in (split.test, split.validation)
    )
    validated -= {split.subjects[row] for row in split.train}  # a closed set: they train here anyway
    notes = []
    for run in [parent, *ancestors(parent)]:
        try:
            other = read_material(run.recipe, Path(run.facts["manifest"]))
        except HandreidError as error:
            notes.append(f"start: whether {run.folder} was trained on test subjects cannot be checked: {error}")
            continue
        if other.manifest.hash != material.manifest.hash and other.manifest.dataset != material.manifest.dataset:
            notes.append(f"start: {run.folder} was trained on other data ({other.manifest.dataset})")
            continue
        if not run.recipe.stages:
            continue
        trained, chosen_by = (
            {other.split.subjects[row] for row in rows} for rows in (other.split.train, other.split.validation_rows)
        )
        both = sorted((tested & (trained | chosen_by)) | (validated & trained))
        if both:
            raise ProtocolError(
                f"start: {run.folder} was trained or chosen with {len(both)} subjects whom this run tests or validates "
                f"with (such as {both[0]}); give both the same data, protocol, aspect, validation and seed"
            )
    return notes


def ancestors(run: Run) -> list[Run]:
    """The runs that this one began with, and that one, and so on, nearest first."""
    found: list[Run] = []
    while (start := run.facts.get("start")) and all(start != str(known.folder) for known in found):
        run = open_run(Path(start))
        found.append(run)
    return found


def begin_with(embedder: Embedder, parent: Run) -> str:
    """Gives the embedder the parent's encoder, and its head if that fits; says which. Raises RunError if neither.

    What this recipe adds to the tower, and the parent has not, begins as it would have without a parent.
    """
    other = Embedder.load(finished_model(parent))
    theirs, ours = other.backbone, embedder.backbone
    unlike = _difference(theirs, ours)
    if unlike:
        raise RunError(
            f"start: {parent.folder} has another tower than this recipe ({unlike}); give model.backbone the same keys"
        )
    state = theirs.state_dict()
    ours.load_state_dict(state | {name: own for name, own in ours.state_dict().items() if name not in state})
    fits = _shapes(other.head) == _shapes(embedder.head)
    if fits:
        embedder.head.load_state_dict(other.head.state_dict())
    return f"begins with the encoder{' and head' if fits else ' (not the head, which is another)'} of {parent.folder}"


def _difference(theirs: Backbone, ours: Backbone) -> str | None:
    """The first key in which the towers differ; None where ours is theirs, or theirs with something added."""
    for key in [*theirs.config, *(key for key in ours.config if key not in theirs.config)]:
        if theirs.config.get(key) != ours.config.get(key) and not (key in ADDED and key not in theirs.config):
            return f"its {key} is {theirs.config.get(key)}, here {ours.config.get(key)}"
    return None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}
