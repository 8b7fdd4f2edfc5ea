"""Whom a run's weights have met: people it was trained on, or chosen by, and those of the runs that it began with.

* People count, under whatever view or label: who trained with the back of a hand is no stranger to its palm.
* People of one name are the same in manifests of one data set, and in tables of unknown origin too ("csv", "folders"):
  to leave out a stranger costs a few queries, to test an acquaintance costs the result.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handreid.data.manifest import Manifest, read
from handreid.errors import HandreidError, RunError
from handreid.training.material import Material, read_material
from handreid.training.runs import Run
from handreid.training.starting import ancestors


@dataclass(frozen=True)
class Met:
    """`trained` has the views that each person trained in, `chosen_by` the people that only validated."""

    run: str
    dataset: str
    manifest_hash: str
    trained: Mapping[str, tuple[str, ...]]
    chosen_by: frozenset[str]

    def knows(self, manifest: Manifest) -> bool:
        """Whether people of one name in it are the same."""
        return self.manifest_hash == manifest.hash or self.dataset == manifest.dataset


def own_material(run: Run, others: Sequence[Path] = ()) -> Material:
    """What the run was trained on, from where it was then or from one of the others, if that is the same.

    Raises RunError when neither is, as then nobody knows who was trained on.
    """
    wanted, then = run.facts["manifest_hash"], Path(run.facts["manifest"])
    problems = []
    for path in (then, *others):
        try:
            if read(path).hash == wanted:
                return read_material(run.recipe, path)
            problems.append(f"{path} is another now")
        except HandreidError as error:
            problems.append(str(error))
    raise RunError(
        f"{run.folder}: who was trained on cannot be known without its manifest ({problems[0]}); give it with --data"
    )


def met_by(run: Run, material: Material, others: Sequence[Path] = ()) -> tuple[list[Met], list[str]]:
    """Of the run and of those that it began with; notes say of which nothing can be known."""
    found, notes = [_met(run, material)], []
    for older in ancestors(run):
        try:
            found.append(_met(older, own_material(older, [material.path, *others])))
        except HandreidError as error:
            notes.append(f"whether people were trained on by {older.folder.name}, which this run began with: {error}")
    return [met for met in found if met.trained or met.chosen_by], notes


def left_out(manifest: Manifest, subjects: Sequence[str], met: Sequence[Met]) -> list[dict[str, Any]]:
    """Who of the subjects was met, each once: `why`, how many `subjects`, their `names`; in the order of `met`."""
    tested, found = set(subjects), []
    for one in met:
        for why, people in _reasons(one, tested) if one.knows(manifest) else ():
            tested -= people
            found.append({"why": why, "subjects": len(people), "names": sorted(people)})
    return found


def _reasons(met: Met, tested: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    trained = {name for name in tested if name in met.trained}
    if trained:
        views = sorted({view for name in trained for view in met.trained[name]} - {"unknown"})
        yield f"trained on by {met.run}" + (f", in {' and '.join(views)}" if views else ""), trained
    chosen_by = met.chosen_by.intersection(tested) - trained
    if chosen_by:
        yield f"validated with by {met.run}, so its model was chosen by them", set(chosen_by)


def _met(run: Run, material: Material) -> Met:
    split, views = material.split, material.manifest.views
    trained: dict[str, set[str]] = {}
    if run.recipe.stages:
        for row in split.train:
            trained.setdefault(split.subjects[row], set()).add(views[row] or "unknown")
    chosen_by = {split.subjects[row] for row in split.validation_rows} if run.recipe.stages else set()
    return Met(
        run.folder.absolute().name,
        material.manifest.dataset,
        material.manifest.hash,
        {subject: tuple(sorted(seen)) for subject, seen in trained.items()},
        frozenset(chosen_by - trained.keys()),
    )


def trained_on(run: Run, material: Material) -> dict[str, Any]:
    """What the run learned from, as a matrix says it in its header."""
    split, recipe = material.split, run.recipe
    rows = split.train if recipe.stages else np.empty(0, np.int64)
    views = [material.manifest.views[row] or "unknown" for row in rows]
    return {
        "recipe": recipe.name,
        "dataset": material.manifest.dataset,
        "aspect": split.view or "all",
        "protocol": split.protocol,
        "label": split.label,
        "subjects": len({split.subjects[row] for row in rows}),
        "photos": len(rows),
        "views": {name: views.count(name) for name in sorted(set(views))},
        "after": [older.recipe.name for older in ancestors(run)],
        "manifest": material.manifest.hash,
    }
