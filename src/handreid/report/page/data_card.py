"""Data cards and environments of the page: the data, whether subjects are disjoint, versions and hardware."""

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
    """A run, and its name on the page."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def recipe(self) -> Recipe: ...


def data_cards(runs: Sequence[Trained]) -> list[dict[str, Any]]:
    """A card for each manifest and split that the runs were trained on, in the order of the runs."""
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
    lines = [("manifest", PurePath(facts["manifest"]).name)]
    lines += [(f"hash of the {name}", facts[f"{name}_hash"][:16]) for name in ("manifest", "split", "draws")]
    try:
        material = load_dataset(run.recipe, Path(facts["manifest"]))
    except HandreidError as error:
        problem = f"The manifest cannot be read any more, so nothing can be counted again: {error}"
        return {"runs": [run.name], "facts": lines, "parts": [], "leaks": [problem, *map(str, facts.get("notes", []))]}
    if material.manifest.hash != facts["manifest_hash"]:
        problem = f"The manifest's hash is now {material.manifest.hash[:16]}: it has changed since the run was trained."
        return {"runs": [run.name], "facts": lines, "parts": [], "leaks": [problem, *map(str, facts.get("notes", []))]}
    manifest, split = material.manifest, material.split
    views = sorted({view for view in manifest.views if view})
    lines[1:1] = [
        ("data set", manifest.dataset),
        ("photos", _photos_of(manifest)),
        *([("views", ", ".join(f"{view} ({manifest.views.count(view):,})" for view in views))] if views else []),
        ("protocol", f"{split.protocol}; an identity is {IDENTITY[split.label]}"),
    ]
    return {"runs": [run.name], "facts": lines, "parts": _parts(material), "leaks": [*_leaks(material), *split.notes]}


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
    """Sentences on how many subjects with queries are in training or validation, counted from the split."""
    split = material.split
    tested = {split.subjects[row] for draw in split.test for row in draw.query}
    sentences = []
    for part, rows in (("training", split.train), ("validation", split.validation_rows)):
        shared = sorted(tested & {split.subjects[row] for row in rows})
        such = f" (such as {shared[0]})" if shared else ""
        sentences.append(f"Test subjects used for {part}: {len(shared)} of {len(tested)}{such}.")
    return sentences


def environments(runs: Sequence[Trained]) -> dict[str, Any]:
    """Versions, hardware and commands: once if all runs have the same, in a table where they differ."""
    by_run = [_environment(run) for run in runs]
    names = list(dict.fromkeys(name for environment in by_run for name in environment))
    values = {name: [environment.get(name, "") for environment in by_run] for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]
    rows = [{"name": run.name, "values": [values[name][index] for name in differing]} for index, run in enumerate(runs)]
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
    """The command as it was typed; of absolute paths only the last part, to reveal nothing of the machine."""
    return " ".join(_short(word) for word in words)


def _short(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and PurePath(value).is_absolute():
        return f"{option}={PurePath(value).name}"
    return PurePath(word).name if PurePath(word).is_absolute() else word
