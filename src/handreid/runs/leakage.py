"""The leak check: whether a test subject, or a photo of one, was seen by the model in training or validation.

* It is by subject, independent of view and label: if the back of a hand was trained on, its palm is not unseen.
* Photos are matched by content, under any name and in any manifest; the subject of a matched photo counts as seen.
* Subjects of the same name are the same person, also if case, width, blanks or invisible characters differ; but not if
  they are in two known data sets that differ. Excluding an unseen subject loses queries; including a seen one
  invalidates the result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handreid.data.cross_condition import drop_rows
from handreid.data.draw_checks import check_galleries
from handreid.data.manifest import Manifest
from handreid.data.photo_hashes import PhotoHash, photo_hashes
from handreid.data.similar_names import likeness
from handreid.data.splits import Split
from handreid.data.tables import format_list
from handreid.errors import ProtocolError
from handreid.progress import Progress
from handreid.runs.dataset import RunDataset
from handreid.runs.exported_exposure import exposures_in
from handreid.runs.exposure import Exposure, Role, exposure_of, exposures_of, validated_rows
from handreid.runs.folder import Run

Hashes = Callable[[Sequence[int]], Sequence[PhotoHash | None]]  # of rows of a manifest


@dataclass(frozen=True)
class Leak:
    """Rows of a manifest that a run has seen, for one reason: all photos of `subjects`, and photos without a subject.

    `copies` counts the rows whose photos are themselves in training or validation, by content.
    """

    run: str
    role: Role
    why: str
    rows: tuple[int, ...]
    subjects: tuple[str, ...]
    copies: int = 0

    def entry(self) -> dict[str, Any]:
        """The leak as an entry of result files."""
        return {
            "why": self.why,
            "subjects": len(self.subjects),
            "photos": len(self.rows),
            "copies": self.copies,
            "names": list(self.subjects),
        }

    def sentence(self) -> str:
        return f"{len(self.subjects)} subjects with {len(self.rows)} photos were excluded: {self.why}"


def find_leaks(
    exposures: Sequence[Exposure], manifest: Manifest, rows: Iterable[int], hashes: Hashes, *, names: bool = True
) -> list[Leak]:
    """Leaks among `rows`: each subject, and each photo without a subject, is reported once.

    `hashes` gives the hashes of the photos of rows, None for missing photos. Without `names` only photo contents are
    compared, not subject names.
    """
    remaining = list(dict.fromkeys(int(row) for row in rows))
    leaks: list[Leak] = []
    for exposure in exposures:
        if names and exposure.names_people_of(manifest):
            leaks += _by_name(exposure, remaining, manifest.table["subject"].to_list())
            remaining = _without(remaining, leaks)
    digests = dict(zip(remaining, hashes(remaining), strict=True)) if any(one.has_contents for one in exposures) else {}
    for exposure in exposures:
        leaks += _by_content(exposure, manifest, remaining, digests)
        remaining = _without(remaining, leaks)
    return leaks


def hashes_in(manifest: Manifest, progress: Progress | None = None) -> Hashes:
    """A function that hashes photos of a manifest on demand."""
    paths = manifest.paths()
    return lambda rows: photo_hashes([paths[row] for row in rows], progress=progress)


def split_leaks(material: RunDataset, progress: Progress | None = None) -> list[Leak]:
    """Leaks within a split: test subjects and photos that it also trains or validates on. Empty for a correct split.

    Subjects are compared if they have queries: the papers' galleries also hold distractors, who may be in training with
    another view. A `prepared` split may test training subjects: there only photos are compared.
    """
    exposure, split = exposure_of(material, progress=progress), material.split
    hashes = hashes_in(material.manifest, progress)
    people = tested_people(split)
    leaks = find_leaks([exposure], material.manifest, people, hashes, names=split.protocol != "prepared")
    beside = set(every_test_row(split)) - set(people)
    return [*leaks, *find_leaks([exposure], material.manifest, sorted(beside), hashes, names=False)]


def repeated_photos(material: RunDataset, progress: Progress | None = None) -> list[str]:
    """Paths of validation photos that are copies of training photos."""
    split = material.split
    trained = exposure_of(material, rows=dict.fromkeys(split.train.tolist(), "train"), progress=progress)
    validated = sorted(set(split.validation_rows.tolist()) - set(split.train.tolist()))
    digests = hashes_in(material.manifest, progress)(validated)
    return [split.paths[row] for row, digest in zip(validated, digests, strict=True) if trained.role_of(digest, None)]


def check_validation_unseen(material: RunDataset, progress: Progress | None = None) -> None:
    """Raises ProtocolError if a subject in validation's galleries or queries has a test query, or if one of these
    photos is a test query.
    """
    split, manifest = material.split, material.manifest
    validated = exposure_of(material, rows=dict.fromkeys(validated_rows(split), "validation"), progress=progress)
    queries = sorted({int(row) for draw in split.test for row in draw.query})
    leaks = find_leaks([validated], manifest, queries, hashes_in(manifest, progress))
    if leaks:
        people = sorted({name for leak in leaks for name in leak.subjects})
        raise ProtocolError(
            f"this sweep would choose by test identities: {len(people)} subjects (such as {people[0]}) are both "
            f"in the validation and the test set of protocol {split.protocol}; "
            "use a split in which these are disjoint"
        )


def check_parent(
    parent: Run, material: RunDataset, progress: Progress | None = None, *, key: str = "init_from"
) -> list[str]:
    """Notes. Raises ProtocolError if the parent run, or one before it, has seen subjects that this run tests, or was
    trained on subjects that this run validates on. `key` of the recipe names the parent.
    """
    exposures, notes = exposures_of(parent, [material.path], progress)
    leaks = _leaks_into(material, exposures, hashes_in(material.manifest, progress))
    if leaks:
        people = sorted({name for leak in leaks for name in leak.subjects})
        raise ProtocolError(
            f"{key}: {parent.folder} was trained or chosen with {len(people)} subjects that this run tests or "
            f"validates on (such as {people[0]}): {leaks[0].why}; give both runs the same data, protocol, view, "
            "validation and seed"
        )
    unnamed = [exposure for exposure in exposures if not exposure.names_people_of(material.manifest)]
    dataset_notes = [
        f"{key}: {exposure.run} was trained on other data ({exposure.dataset}): compared by photo content only"
        for exposure in unnamed
    ]
    return [f"{key}: {note}" for note in notes] + dataset_notes


def check_exported(path: Path, material: RunDataset) -> list[str]:
    """Notes. Raises ProtocolError if the exported towers in the file have seen rendered people that this run tests, or
    were trained on such that it validates on. Of other people the file has no names: a note says how many they are.
    """
    exposures, unnamed = exposures_in(path)
    leaks = _leaks_into(material, exposures, lambda rows: [None] * len(rows))
    if leaks:
        people = sorted({name for leak in leaks for name in leak.subjects})
        raise ProtocolError(
            f"model.backbone.weights: the towers in {path.name} were trained or chosen with {len(people)} rendered "
            f"people that this run tests or validates on (such as {people[0]}): {leaks[0].why}; render others, with "
            "another --seed"
        )
    note = (
        f"model.backbone.weights: {path.name} was trained on {unnamed:,} people whose names are not in it: make sure "
        "that none of them is tested, or start from the run itself, which is compared"
    )
    return [note] if unnamed else []


def _leaks_into(material: RunDataset, exposures: Sequence[Exposure], hashes: Hashes) -> list[Leak]:
    """Seen subjects among those that a run tests, and subjects of training among those that it validates on."""
    split, manifest = material.split, material.manifest
    leaks = find_leaks(exposures, manifest, tested_people(split), hashes)
    training = {split.subjects[row] for row in split.train}  # in a closed set they are in validation too
    validated = [row for row in validated_rows(split) if split.subjects[row] not in training]
    return leaks + find_leaks([exposure.only("train") for exposure in exposures], manifest, validated, hashes)


def unseen(
    run: Run, material: RunDataset, progress: Progress | None = None
) -> tuple[RunDataset, list[Leak], list[str]]:
    """The data set with a test set of unseen subjects and photos only, the leaks that were excluded, and notes.

    On the run's own manifest, its split keeps subjects disjoint, so a leak means another protocol or view: that raises
    ProtocolError. On other manifests leaks are excluded. Raises ProtocolError too if a test draw has no query left.
    """
    split, manifest = material.split, material.manifest
    exposures, notes = exposures_of(run, [material.path], progress)
    hashes = hashes_in(manifest, progress)
    people = tested_people(split)
    prepared = [exposure for exposure in exposures if _both_prepared(exposure, material)]
    leaks = find_leaks([exposure for exposure in exposures if exposure not in prepared], manifest, people, hashes)
    leaks += find_leaks(prepared, manifest, _without(people, leaks), hashes, names=False)
    beside = sorted(set(every_test_row(split)) - set(people))
    leaks += find_leaks(exposures, manifest, beside, hashes, names=False)
    if not leaks:
        return material, [], notes
    if run.facts.get("manifest_hash") == manifest.hash:
        raise ProtocolError(_refusal(leaks, len({split.subjects[row] for row in people})))
    test = drop_rows(split.test, {row for leak in leaks for row in leak.rows})
    if not all(len(draw.query) for draw in test):
        raise ProtocolError(
            f"{material.path}: no unseen subjects are left to test. {'; '.join(leak.sentence() for leak in leaks)}. "
            "If they are different people of the same names, rename them"
        )
    check_galleries(test, split.identities, f"test of {material.path}", "give photos of more people")
    notes += [leak.sentence() for leak in leaks]
    return replace(material, split=replace(split, test=test)), leaks, notes


def tested_people(split: Split) -> list[int]:
    """Rows of queries and of the gallery photos of their identities, without distractors."""
    queries = {int(row) for draw in split.test for row in draw.query}
    identities = {split.identities[row] for row in queries}
    searched = {int(row) for draw in split.test for row in draw.gallery if split.identities[row] in identities}
    return sorted(queries | searched)


def every_test_row(split: Split) -> list[int]:
    """Rows of galleries and queries of all test draws."""
    return sorted({int(row) for draw in split.test for part in (draw.gallery, draw.query) for row in part})


def _both_prepared(exposure: Exposure, material: RunDataset) -> bool:
    """Whether training and test are of one `prepared` split, which may test training subjects; its notes say so."""
    same_manifest = exposure.manifest_hash == material.manifest.hash
    return same_manifest and exposure.protocol == material.split.protocol == "prepared"


def _refusal(leaks: Sequence[Leak], tested: int) -> str:
    people = sorted({name for leak in leaks for name in leak.subjects})
    such = f" (such as {people[0]})" if people else ""
    verb = "trained on" if any(leak.role == "train" for leak in leaks) else "validated on"
    runs = format_list(dict.fromkeys(leak.run for leak in leaks))
    copies = sum(leak.copies for leak in leaks)
    by_content = f" {copies} photos are copies of theirs;" if copies else ""
    return (
        f"{len(people)} of {tested} test subjects were {verb} in {runs}{such}:{by_content} train a run with the "
        "protocol and view of this evaluation, or exclude these subjects with --matrix view"
    )


def _without(rows: Sequence[int], leaks: Sequence[Leak]) -> list[int]:
    out = {row for leak in leaks for row in leak.rows}
    return [row for row in rows if row not in out]


def _by_name(exposure: Exposure, rows: Sequence[int], subjects: Sequence[str | None]) -> Iterator[Leak]:
    names = {row: likeness(subject) for row in rows if (subject := subjects[row]) is not None}
    trained, chosen_by = set(names.values()) & exposure.trained.keys(), set(names.values()) & exposure.chosen_by
    views = sorted({view for name in trained for view in exposure.trained[name]})
    where = f", in {' and '.join(views)}" if views else ""
    kinds: tuple[tuple[Role, set[str], str], ...] = (
        ("train", trained, f"trained on by {exposure.run}{where}"),
        ("validation", chosen_by, f"used by {exposure.run} for validation, so its model was chosen by them"),
    )
    for role, seen_names, why in kinds:
        matches = tuple(row for row, name in names.items() if name in seen_names)
        if matches:
            people = sorted({subject for row in matches if (subject := subjects[row]) is not None})
            yield Leak(exposure.run, role, why, matches, tuple(people))


def _by_content(
    exposure: Exposure, manifest: Manifest, rows: Sequence[int], digests: dict[int, PhotoHash | None]
) -> Iterator[Leak]:
    """Leaks by copies of photos, each with all photos of its subject in this manifest."""
    subjects, paths = manifest.table["subject"].to_list(), manifest.table["path"].to_list()
    same = exposure.manifest_hash == manifest.hash
    roles = {row: exposure.role_of(digests.get(row), paths[row] if same else None) for row in rows}
    out: set[int] = set()
    whys: tuple[tuple[Role, str], ...] = (("train", "trained on"), ("validation", "validated on"))
    for role, verb in whys:
        copies = {row for row in rows if roles[row] == role} - out
        people = {name for row in copies if (name := subjects[row]) is not None}
        matches = tuple(row for row in rows if row not in out and (row in copies or subjects[row] in people))
        if matches:
            out.update(matches)
            why = f"{len(copies)} of them are photos that {exposure.run} was {verb}, found by content"
            yield Leak(exposure.run, role, why, matches, tuple(sorted(people)), len(copies))
