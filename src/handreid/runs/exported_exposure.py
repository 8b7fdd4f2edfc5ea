"""Who was seen by exported towers: in their file, people by name where they are rendered, else only how many.

Rendered people are recognised by seed and name, as nobody else has their hands: copies of single photos under other
names are not. Names of real people are not written into a file that is made to be passed on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from handreid.data.rendered.people import is_rendered
from handreid.models.exported_towers import SeenPeople, exported_facts
from handreid.runs.exposure import ExposedPhoto, Exposure, Role


def people_seen(exposures: Sequence[Exposure], sets: Mapping[str, str]) -> tuple[SeenPeople, ...]:
    """What a file says of these exposures. `sets` are the people's sets (`people_set`) by hash of the manifest, for
    exposures that were recorded without.
    """
    return tuple(
        _of_one(exposure, sets.get(exposure.manifest_hash, exposure.dataset))
        for exposure in exposures
        if exposure.photos
    )


def exposures_in(path: Path) -> tuple[list[Exposure], int]:
    """Exposures to people that the file of exported towers names, and how many others it says were seen."""
    facts = exported_facts(path)
    exposures = [
        Exposure(one.run, one.recipe, one.dataset, one.manifest_hash, one.protocol, _photos(one))
        for one in facts.seen
        if one.train or one.validation
    ]
    return exposures, sum(one.subjects for one in facts.seen if not (one.train or one.validation))


def _of_one(exposure: Exposure, people: str) -> SeenPeople:
    by_role: dict[Role, set[str]] = {"train": set(), "validation": set()}
    for photo in exposure.photos:
        by_role[photo.role].add(photo.subject)
    by_role["validation"] -= by_role["train"]
    names = {role: tuple(sorted(subjects)) for role, subjects in by_role.items()} if is_rendered(people) else {}
    return SeenPeople(
        run=exposure.run,
        recipe=exposure.recipe,
        dataset=people,
        manifest_hash=exposure.manifest_hash,
        protocol=exposure.protocol,
        subjects=sum(map(len, by_role.values())),
        **names,
    )


def _photos(people: SeenPeople) -> tuple[ExposedPhoto, ...]:
    """An entry for each person, without path and content."""
    roles: tuple[tuple[Role, tuple[str, ...]], ...] = (("train", people.train), ("validation", people.validation))
    return tuple(ExposedPhoto("", name, None, role, None, None) for role, names in roles for name in names)
