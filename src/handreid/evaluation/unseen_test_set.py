"""Who is tested of a manifest when a run meets it: its own test, another data set's, or everyone; strangers only.

* On the run's own photos its own protocol says who. On others, the data set's protocol or the split that it comes with;
  where it has neither, everyone is tested, as nobody of it was trained on.
* Whoever the run knows (`leakage`) is taken out of queries and galleries alike.
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
from handreid.data.splits import natural_protocol
from handreid.draw import Draw
from handreid.errors import ProtocolError
from handreid.progress import Progress
from handreid.recipe import Recipe
from handreid.recipe.load import override_recipe
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.exposure import Exposure
from handreid.runs.leakage import find_leaks, hashes_in


@dataclass(frozen=True, eq=False)
class UnseenTestSet:
    """`draws` of one manifest, with the identity and the subject of every row; `out` says who was left out, and why."""

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
        """Every photo that is searched for or among in any draw, once, ascending."""
        return np.unique(np.concatenate([part for draw in self.draws for part in (draw.gallery, draw.query)]))

    @property
    def subjects(self) -> list[str]:
        """Of every row; a photo of nobody known has a name of its own."""
        return names_of(self.manifest, "subject")


def unseen_test_set(
    recipe: Recipe,
    path: Path,
    own: RunDataset,
    exposures: Sequence[Exposure],
    protocol: str | None,
    progress: Progress | None = None,
) -> UnseenTestSet:
    """`recipe` is the run's, `own` what it was trained on; `protocol` is asked for on other photos than its own.

    Raises ProtocolError where nobody is left.
    """
    return _strangers(_everybody(recipe, path, own, protocol), exposures, progress)


def name_test_sets(tests: Sequence[UnseenTestSet], paths: Sequence[Path]) -> list[UnseenTestSet]:
    """Each with a name of its own: the data set's where it is one's alone, else the file's."""
    sets = [of.manifest.dataset for of in tests]
    files = [path.absolute().parent.name if path.stem == "manifest" else path.stem for path in paths]
    wanted = [
        dataset if dataset not in ("csv", "folders") and sets.count(dataset) == 1 else file
        for dataset, file in zip(sets, files, strict=True)
    ]
    names = [
        f"{name} ({wanted[: at + 1].count(name)})" if wanted.count(name) > 1 else name for at, name in enumerate(wanted)
    ]
    return [replace(of, name=name) for of, name in zip(tests, names, strict=True)]


def _everybody(recipe: Recipe, path: Path, own: RunDataset, protocol: str | None) -> UnseenTestSet:
    manifest = read(path)
    view = recipe.data.view if recipe.data.view in manifest.views else "all"
    if manifest.hash == own.manifest.hash:
        split = load_dataset(recipe, path).split
    elif protocol is None and natural_protocol(manifest) == "disjoint":
        return _everyone(recipe, manifest, None if view == "all" else view)
    else:
        asked = {"protocol": protocol or "auto", "label": "auto", "view": view}
        split = load_dataset(override_recipe(recipe, asked, None), path, trains=False).split
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
    return UnseenTestSet(manifest.dataset, manifest, draws, tuple(labels), how, (note, *notes), cameras=cameras)


def _strangers(tested: UnseenTestSet, exposures: Sequence[Exposure], progress: Progress | None) -> UnseenTestSet:
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
