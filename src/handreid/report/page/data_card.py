"""What the runs stand on: the data, who was kept apart from whom, and what they ran on."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np

from handreid.data.manifest import Manifest
from handreid.errors import HandreidError
from handreid.recipe import Recipe
from handreid.report.page.summary_text import IDENTITY
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run
from handreid.runs.records import read_run


@runtime_checkable
class Trained(Protocol):
    """A run, and what the page calls it."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def recipe(self) -> Recipe: ...


def data_cards(runs: Sequence[Trained]) -> list[dict[str, Any]]:
    """A card for each manifest and split that the runs were trained on, in their order."""
    cards: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        facts = Run(run.folder).facts
        key = (facts["manifest_hash"], facts["draws_hash"])
        if key not in cards:
            cards[key] = _card(run, facts)
        else:
            cards[key]["runs"].append(run.name)
    for card in cards.values():
        card["title"] = ", ".join(card.pop("runs"))
    return list(cards.values())


def _card(run: Trained, facts: dict[str, Any]) -> dict[str, Any]:
    told = [("manifest", PurePath(facts["manifest"]).name)]
    told += [(f"hash of the {name}", facts[f"{name}_hash"][:16]) for name in ("manifest", "split", "draws")]
    try:
        material = load_dataset(run.recipe, Path(facts["manifest"]))
    except HandreidError as error:
        gone = f"The manifest cannot be read any more, so nothing can be counted again: {error}"
        return {"runs": [run.name], "facts": told, "parts": [], "leaks": [gone, *map(str, facts.get("notes", []))]}
    if material.manifest.hash != facts["manifest_hash"]:
        gone = f"The manifest's hash is now {material.manifest.hash[:16]}: it has changed since the run was trained."
        return {"runs": [run.name], "facts": told, "parts": [], "leaks": [gone, *map(str, facts.get("notes", []))]}
    manifest, split = material.manifest, material.split
    views = sorted({view for view in manifest.views if view})
    told[1:1] = [
        ("data set", manifest.dataset),
        ("photos", _photos_of(manifest)),
        *([("views", ", ".join(f"{view} ({manifest.views.count(view):,})" for view in views))] if views else []),
        ("protocol", f"{split.protocol}; an identity is {IDENTITY[split.label]}"),
    ]
    return {"runs": [run.name], "facts": told, "parts": _parts(material), "leaks": [*_leaks(material), *split.notes]}


def _photos_of(manifest: Manifest) -> str:
    people, unlabelled = manifest.labelled.table["subject"].n_unique(), manifest.table["subject"].null_count()
    return f"{len(manifest):,} of {people:,} people" + (f", {unlabelled:,} without a subject" if unlabelled else "")


def _parts(material: RunDataset) -> list[dict[str, Any]]:
    split = material.split
    queries = np.unique(np.concatenate([draw.query for draw in split.test]))
    gallery = np.unique(np.concatenate([draw.gallery for draw in split.test]))
    parts = {"training": split.train, "validation": split.validation_rows, "test: queries": queries}
    return [
        {
            "name": name,
            "photos": len(rows),
            "identities": len({split.identities[row] for row in rows}),
            "people": len({split.subjects[row] for row in rows}),
        }
        for name, rows in {**parts, "test: gallery, over all draws": gallery}.items()
    ]


def _leaks(material: RunDataset) -> list[str]:
    """Whether anybody who is searched for has been seen before, counted from the split itself."""
    split = material.split
    tested = {split.subjects[row] for draw in split.test for row in draw.query}
    found = []
    for part, rows in (("training", split.train), ("validation", split.validation_rows)):
        both = sorted(tested & {split.subjects[row] for row in rows})
        such = f" (such as {both[0]})" if both else ""
        found.append(f"Test subjects used for {part}: {len(both)} of {len(tested)}{such}.")
    return found


def environments(runs: Sequence[Trained]) -> dict[str, Any]:
    """Versions, hardware and commands: once where they are the same for all runs, in a table where they differ."""
    told = [_environment(run) for run in runs]
    names = list(dict.fromkeys(name for one in told for name in one))
    values = {name: [one.get(name, "") for one in told] for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]
    rows = [{"name": run.name, "values": [values[name][at] for name in differing]} for at, run in enumerate(runs)]
    return {
        "alike": [(name, values[name][0]) for name in names if name not in differing],
        "columns": differing,
        "rows": rows if differing else [],
    }


def _environment(run: Trained) -> dict[str, str]:
    facts = read_run(run.folder)
    versions = facts.get("versions", {})
    return {
        "started": str(facts.get("started", "")).replace("T", " ").removesuffix("+00:00"),
        "python": str(facts.get("python", "")),
        **{name: str(value) for name, value in versions.items() if name in ("handreid", "torch", "lightning")},
        "device": f"{facts.get('device', '')}, {facts.get('threads', '?')} threads",
        "seed": str(facts.get("seed", "")),
        **({"precision": ", ".join(dict.fromkeys(facts["precision"]))} if facts.get("precision") else {}),
        "command": short_command(facts.get("command", [])),
    }


def short_command(words: Sequence[str]) -> str:
    """As it was typed; of absolute paths the last part alone, which says nothing of whose machine it was."""
    return " ".join(_short(word) for word in words)


def _short(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and PurePath(value).is_absolute():
        return f"{option}={PurePath(value).name}"
    return PurePath(word).name if PurePath(word).is_absolute() else word
