"""A run that begins with the encoder of another: which, whether it may, and its weights.

Whom the other run was trained on, or chosen by, must be no one that this one tests with, nor those that it trained on
be validated with: a leak through the parent looks like progress. People count, not photos.
"""

from pathlib import Path

from handreid.errors import HandreidError, ProtocolError, RunError
from handreid.models.embedder import Embedder
from handreid.recipe import Recipe
from handreid.training.material import Material, read_material
from handreid.training.runs import Run, check_finished, file_hash, open_run


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
    return {} if parent is None else {"start": str(parent.folder.absolute()), "start_hash": file_hash(parent.model)}


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
    """Gives the embedder the parent's encoder, and its head if that fits; says which. Raises RunError if neither."""
    other = Embedder.load(parent.model)
    if other.backbone.config != embedder.backbone.config:
        raise RunError(
            f"start: {parent.folder} has another tower than this recipe ({_difference(other, embedder)}); "
            "give model.backbone the same keys"
        )
    embedder.backbone.load_state_dict(other.backbone.state_dict())
    theirs, ours = other.head.state_dict(), embedder.head.state_dict()
    fits = theirs.keys() == ours.keys() and all(theirs[name].shape == ours[name].shape for name in ours)
    if fits:
        embedder.head.load_state_dict(theirs)
    return f"begins with the encoder{' and head' if fits else ' (not the head, which is another)'} of {parent.folder}"


def _difference(theirs: Embedder, ours: Embedder) -> str:
    a, b = theirs.backbone.config, ours.backbone.config
    key = next(key for key in [*a, *b] if a.get(key) != b.get(key))
    return f"its {key} is {a.get(key)}, here {b.get(key)}"
