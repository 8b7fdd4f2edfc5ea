"""Initialisation from the encoder of another run (`init_from`): which run, and its weights.

`leakage.check_parent` checks that the parent run was not trained or selected on subjects that this run tests: such a
leak would look like a better result.
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
    """The run that `init_from` names: a run beside `out`, else a folder. Raises RunError if it is unfinished."""
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
    """What run.json records of the parent run: its folder, and the hash of its model."""
    return (
        {}
        if parent is None
        else {"init_from": str(parent.folder.absolute()), "init_from_hash": file_hash(finished_model(parent))}
    )


def initialise_from(embedder: Embedder, parent: Run) -> str:
    """Loads the parent's encoder, and its head if that fits; returns a line that says which.

    Parameters that this recipe adds to the tower, and the parent does not have, keep their initial values. Raises
    RunError if the towers differ in anything else.
    """
    parent_embedder = Embedder.load(finished_model(parent))
    parent_tower, tower = parent_embedder.backbone, embedder.backbone
    unlike = _difference(parent_tower, tower)
    if unlike:
        raise RunError(
            f"init_from: the tower of {parent.folder} differs from this recipe's ({unlike}); use the same keys in "
            "model.backbone"
        )
    state = parent_tower.state_dict()
    tower.load_state_dict(state | {name: value for name, value in tower.state_dict().items() if name not in state})
    fits = _shapes(parent_embedder.head) == _shapes(embedder.head)
    if fits:
        embedder.head.load_state_dict(parent_embedder.head.state_dict())
    return f"begins with the encoder{' and head' if fits else ' (not the head, which is another)'} of {parent.folder}"


def _difference(parent_tower: Backbone, tower: Backbone) -> str | None:
    """The first key in which the towers differ; None if they are equal apart from additions of this recipe."""
    for key in [*parent_tower.config, *(key for key in tower.config if key not in parent_tower.config)]:
        if parent_tower.config.get(key) != tower.config.get(key) and not (
            key in ADDED and key not in parent_tower.config
        ):
            return f"its {key} is {parent_tower.config.get(key)}, here {tower.config.get(key)}"
    return None


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}
