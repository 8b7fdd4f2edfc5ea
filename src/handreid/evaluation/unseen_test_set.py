"""Test draws of a manifest for a run, with unseen subjects only.

* On the run's own photos, its protocol selects the test subjects. On others, the data set's protocol or the split that
  it comes with; where it has neither, all subjects are tested, as none of them was trained on.
* Subjects that the run has seen (`leakage`) are removed from queries and galleries alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from handreid.data.cameras import taken_by
from handreid.data.cross_condition import draw_all_subjects, drop_rows
from handreid.data.draw_checks import check_galleries
from handreid.data.manifest import Manifest, names_of, read
from handreid.data.predicted_views import predicted_notes
from handreid.data.splits import natural_protocol
from handreid.draw import Draw
from handreid.errors import ProtocolError
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.load import override_recipe
from handreid.runs.dataset import RunDataset, check_tested, load_dataset
from handreid.runs.exposure import Exposure
from handreid.runs.leakage import find_leaks, hashes_in


@dataclass(frozen=True, eq=False)
class UnseenTestSet:
    """`draws` of one manifest, with the identity and the subject of every row; `out`: who was left out, and why."""

    name: str
    manifest: Manifest
    draws: tuple[Draw, ...]
    identities: tuple[str, ...]
    protocol: dict[str, str]
    notes: tuple[str, ...]
    out: tuple[dict[str, Any], ...] = ()
    cameras: tuple[str | None, ...] | None = None  # of every row, where they count (see `Split`)

    @property
    def rows(self) -> Int[np.ndarray, " photos"]:
        """All query and gallery photos of all draws, each once, ascending."""
        return np.unique(np.concatenate([part for draw in self.draws for part in (draw.gallery, draw.query)]))

    @property
    def subjects(self) -> list[str]:
        """Of every row; each photo without a subject has a unique name."""
        return names_of(self.manifest, "subject")


def unseen_test_set(
    recipe: Recipe,
    path: Path,
    trained_on: RunDataset,
    exposures: Sequence[Exposure],
    protocol: str | None,
    progress: Progress | None = None,
) -> UnseenTestSet:
    """`recipe` is the run's; `protocol` replaces that of other photos than the run's own.

    Raises ProtocolError where no subject is left.
    """
    return _unseen_only(_all_subjects(recipe, path, trained_on, protocol), exposures, progress)


def name_test_sets(tests: Sequence[UnseenTestSet], paths: Sequence[Path]) -> list[UnseenTestSet]:
    """With unique names: the data set's where only one test set has it, else the file's."""
    sets = [test.manifest.dataset for test in tests]
    files = [path.absolute().parent.name if path.stem == "manifest" else path.stem for path in paths]
    candidates = [
        dataset if dataset not in ("csv", "folders") and sets.count(dataset) == 1 else file
        for dataset, file in zip(sets, files, strict=True)
    ]
    names = [
        f"{name} ({candidates[: position + 1].count(name)})" if candidates.count(name) > 1 else name
        for position, name in enumerate(candidates)
    ]
    return [replace(test, name=name) for test, name in zip(tests, names, strict=True)]


def _all_subjects(recipe: Recipe, path: Path, trained_on: RunDataset, protocol: str | None) -> UnseenTestSet:
    manifest = read(path)
    view = recipe.data.view if recipe.data.view in manifest.views else "all"
    if manifest.hash == trained_on.manifest.hash:
        check_tested(trained_on)
        split = load_dataset(recipe, path).split
    elif protocol is None and natural_protocol(manifest) == "disjoint":
        return _everyone(recipe, manifest, None if view == "all" else view)
    else:
        changes = {"protocol": protocol or "auto", "label": "auto", "view": view}
        split = load_dataset(override_recipe(recipe, changes, None), path, trains=False).split
    how = {"protocol": split.protocol, "label": split.label, "view": split.view or "all"}
    return UnseenTestSet(
        manifest.dataset, manifest, split.test, split.identities, how, split.notes, cameras=split.cameras
    )


def _everyone(recipe: Recipe, manifest: Manifest, view: str | None) -> UnseenTestSet:
    label = manifest.label_kinds[-1]
    draws = draw_all_subjects(manifest, label, view, seed=recipe.data.seed, draws=recipe.evaluate.draws)
    labels = names_of(manifest, label)
    cameras, notes = taken_by(manifest, recipe.data.cameras, {"test": draws}, labels)
    how = {"protocol": "everyone", "label": label, "view": view or "all"}
    note = "everyone is tested, as the data set has no protocol of its own and the run was not trained on it"
    notes = [note, *notes, *predicted_notes(manifest)]
    return UnseenTestSet(manifest.dataset, manifest, draws, tuple(labels), how, tuple(notes), cameras=cameras)


def _unseen_only(tested: UnseenTestSet, exposures: Sequence[Exposure], progress: Progress | None) -> UnseenTestSet:
    leaks = find_leaks(exposures, tested.manifest, tested.rows.tolist(), hashes_in(tested.manifest, progress))
    draws = drop_rows(tested.draws, {row for leak in leaks for row in leak.rows})
    if not all(len(draw.query) for draw in draws):
        people = sum(len(leak.subjects) for leak in leaks)
        raise ProtocolError(
            f"{tested.manifest.dataset}: no unseen subjects are left to test. {people} subjects were seen by the run "
            f"({'; '.join(leak.why for leak in leaks)}); if they are different people of the same names, rename them"
        )
    check_galleries(draws, tested.identities, f"test of {tested.manifest.dataset}", "give photos of more people")
    return replace(tested, draws=draws, out=tuple(leak.entry() for leak in leaks))
