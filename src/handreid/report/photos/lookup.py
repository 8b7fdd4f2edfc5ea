"""Photos of a run that somebody asked for, by the manifest's name or by a rule."""

import difflib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from handreid.data.draws import hash_key
from handreid.data.loading import decode
from handreid.data.tables import format_list
from handreid.data.unlabelled import UNKNOWN
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable
from handreid.models.embedder import Embedder
from handreid.progress import Progress
from handreid.report.photos.model_input import model_input_image
from handreid.runs.side_information import side_information_of


@dataclass(frozen=True, eq=False)
class Shown:
    """Photos as the model takes them, and what stands on the page beside them."""

    photos: Tensor
    conditions: Tensor | None
    pictures: list[Image.Image]
    names: list[str]  # the manifest's
    identities: list[str | None]  # None of photos of nobody known
    subjects: list[str | None]
    roles: list[str]

    def label(self, number: int) -> str:
        """Name of the file and who it is, if that is known, with a word where it is no test photo."""
        name, identity, role = PurePosixPath(self.names[number]).name, self.identities[number], self.roles[number]
        if identity is None:
            return f"{name}\n{UNKNOWN}"
        return f"{name}\n{identity}{'' if role == 'test' else f', {role}'}"


def find(known: PhotoTable, name: str) -> int:
    """The photo called so, as a position in the table: its path in the manifest, or the end of one path alone."""
    paths = known.table["path"].to_list()
    if name in paths:
        return paths.index(name)
    ending = [n for n, path in enumerate(paths) if path.endswith(f"/{name.lstrip('/')}")]
    if len(ending) == 1:
        return ending[0]
    where = known.facts["manifest"]
    if ending:
        raise DataError(
            f"{name!r} matches {len(ending)} photos of {where} ({format_list(paths[n] for n in ending)}): give "
            "the full path"
        )
    near = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; its photos are called as {paths[0]}"
    raise DataError(f"{where} has no photo {name!r}{hint}")


def choose(known: PhotoTable, count: int, seed: int) -> Int[np.ndarray, " photo"]:
    """Positions of photos in a seeded order in which everybody has one before anybody has two; then by path."""
    subjects, paths = known.table["subject"].to_list(), known.table["path"].to_list()
    order = sorted(range(len(paths)), key=lambda n: hash_key(seed, "attention", 0, paths[n]))
    before: Counter[str] = Counter()
    turns = []
    for n in order:
        turns.append((before[subjects[n]], n))
        before[subjects[n]] += 1
    first = [n for _, n in sorted(turns, key=lambda one: one[0])[:count]]
    return np.array(sorted(first, key=lambda n: paths[n]), np.int64)


def show(known: PhotoTable, chosen: list[int], embedder: Embedder, progress: Progress) -> Shown:
    """Photos by position. Raises PhotoError."""
    rows = known.rows[chosen]
    every = known.manifest.paths()
    paths: list[Path] = [every[row] for row in rows]
    photos = np.stack([decode(path, embedder.preprocessing) for path in paths])
    found, remarks = side_information_of(embedder, known.manifest.table[rows])
    for remark in remarks:
        progress.say(f"note: {remark}")
    table = known.table[chosen]
    return Shown(
        torch.from_numpy(photos),
        None if found is None else torch.from_numpy(found),
        [model_input_image(path, embedder.preprocessing) for path in paths],
        table["path"].to_list(),
        table["identity"].to_list(),
        table["subject"].to_list(),
        table["role"].to_list(),
    )
