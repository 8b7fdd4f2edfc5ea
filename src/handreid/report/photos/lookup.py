"""Selection of a run's photos by name or at random, and the model's inputs for them."""

import difflib
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from handreid.data.draws import hash_key
from handreid.data.loading import decode
from handreid.data.photo_file import photo_files
from handreid.data.tables import format_list
from handreid.data.unlabelled import UNKNOWN
from handreid.errors import DataError
from handreid.evaluation.embed import PhotoTable
from handreid.models.embedder import Embedder
from handreid.progress import Progress
from handreid.report.photos.model_input import model_input_image
from handreid.runs.side_information import side_information_of


@dataclass(frozen=True, eq=False)
class LoadedPhotos:
    """Photos as model inputs, and their pictures and labels for a figure."""

    photos: Tensor
    conditions: Tensor | None
    pictures: list[Image.Image]
    names: list[str]  # paths in the manifest
    identities: list[str | None]  # None for photos without a label
    subjects: list[str | None]
    roles: list[str]

    def label(self, number: int) -> str:
        """File name and identity, if known, and the role if it is not a test photo."""
        name, identity, role = PurePosixPath(self.names[number]).name, self.identities[number], self.roles[number]
        if identity is None:
            return f"{name}\n{UNKNOWN}"
        return f"{name}\n{identity}{'' if role == 'test' else f', {role}'}"


def find(table: PhotoTable, name: str) -> int:
    """The position of a photo in the table, by its path in the manifest or an unambiguous end of it."""
    paths = table.table["path"].to_list()
    if name in paths:
        return paths.index(name)
    ending = [n for n, path in enumerate(paths) if path.endswith(f"/{name.lstrip('/')}")]
    if len(ending) == 1:
        return ending[0]
    where = table.facts["manifest"]
    if ending:
        raise DataError(
            f"{name!r} matches {len(ending)} photos of {where} ({format_list(paths[n] for n in ending)}): give "
            "the full path"
        )
    near = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; its photos are called as {paths[0]}"
    raise DataError(f"{where} has no photo {name!r}{hint}")


def choose(table: PhotoTable, count: int, seed: int) -> Int[np.ndarray, " photo"]:
    """Positions of `count` photos drawn by the seed, one per subject before a second of any; in the order of paths."""
    subjects, paths = table.table["subject"].to_list(), table.table["path"].to_list()
    order = sorted(range(len(paths)), key=lambda n: hash_key(seed, "attention", 0, paths[n]))
    before: Counter[str] = Counter()
    turns = []
    for n in order:
        turns.append((before[subjects[n]], n))
        before[subjects[n]] += 1
    drawn = [n for _, n in sorted(turns, key=lambda turn: turn[0])[:count]]
    return np.array(sorted(drawn, key=lambda n: paths[n]), np.int64)


def show(table: PhotoTable, positions: list[int], embedder: Embedder, progress: Progress) -> LoadedPhotos:
    """Loads photos by position. Raises PhotoError."""
    rows = table.rows[positions]
    files = photo_files(table.manifest, rows)
    photos = np.stack([decode(file, embedder.preprocessing) for file in files])
    conditions, remarks = side_information_of(embedder, table.manifest.table[rows])
    for remark in remarks:
        progress.say(f"note: {remark}")
    selected = table.table[positions]
    return LoadedPhotos(
        torch.from_numpy(photos),
        None if conditions is None else torch.from_numpy(conditions),
        [model_input_image(file, embedder.preprocessing) for file in files],
        selected["path"].to_list(),
        selected["identity"].to_list(),
        selected["subject"].to_list(),
        selected["role"].to_list(),
    )
