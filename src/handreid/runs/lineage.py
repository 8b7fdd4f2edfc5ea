"""A run that begins with the encoder of another: which one, and its weights.

Whether it may is a question of `leakage.check_parent`: whoever the other run was trained on or chosen by must be no
one whom this one tests. A leak through the parent looks like progress.
"""

from pathlib import Path

import torch
from torch import nn

from handreid.errors import RunError
from handreid.files import file_hash
from handreid.models.backbone import ADDED, Backbone
from handreid.models.embedder import Embedder
from handreid.recipe import Recipe
from handreid.runs.folder import Run, check_finished, finished_model, open_run


def parent_of(recipe: Recipe, out: Path) -> Run | None:
    """The run that `init_from` names: one beside `out`, else a folder. Raises RunError when it is unfinished."""
    if recipe.init_from is None:
        return None
    beside = out.absolute().parent / recipe.init_from
    try:
        run = open_run(beside if (beside / "run.json").is_file() else Path(recipe.init_from))
    except RunError:
        raise RunError(
            f"init_from: {recipe.init_from!r} is neither a run folder nor the name of a run beside {out}; "
            "train it first"
        ) from None
    if run.folder.absolute() == out.absolute():
        raise RunError(f"init_from: {recipe.init_from!r} is this run itself; choose another --out")
    check_finished(run)
    return run


def parent_record(parent: Run | None) -> dict[str, str]:
    """What a run says of the one that it began with."""
    return (
        {}
        if parent is None
        else {"init_from": str(parent.folder.absolute()), "init_from_hash": file_hash(finished_model(parent))}
    )


def initialise_from(embedder: Embedder, parent: Run) -> str:
    """Gives the embedder the parent's encoder, and its head if that fits; says which. Raises RunError if neither.

    What this recipe adds to the tower, and the parent has not, begins as it would have without a parent.
    """
    other = Embedder.load(finished_model(parent))
    theirs, ours = other.backbone, embedder.backbone
    unlike = _difference(theirs, ours)
    if unlike:
        raise RunError(
            f"init_from: the tower of {parent.folder} differs from this recipe's ({unlike}); use the same keys in "
            "model.backbone"
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
