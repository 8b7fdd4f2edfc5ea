"""Embeddings of a run's model, kept by what is on the photo: whatever was embedded once is not embedded again.

* One file in the run's folder, for one model, known by its file's hash, which covers weights and preprocessing. An
  embedding is known by the SHA-256 of the photo's file, by what the model was told beside the pixels (`conditions_of`),
  and by what it was shown and how. So another view, protocol or label on the same photos finds them, and so do copies.
* The file holds the SHA-256 of all its content. One that is not as it was written is not read; its photos are embedded
  anew, and that is said. Wrong numbers never come out of it.
* Photos that are gone cannot have changed: what was on them is what the file noted for this manifest, else the
  manifest's `sha256`. So numbers outlive photos.
* Two evaluations at once both add what they found to what is there then, and replace the file whole: one may lose what
  the other added in between, which costs time and changes no number.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from handreid.data.decoding import DECODER
from handreid.data.manifest import Manifest
from handreid.data.photo_hashes import file_hashes, photo_hashes
from handreid.errors import OutputError
from handreid.files import write_atomic
from handreid.inference import Shots, composes
from handreid.models.extraction import Conditions
from handreid.progress import Progress
from handreid.runs.folder import Run
from handreid.types import Inference

Shown = Literal["photo", "mirror image", "both"]
_FORMAT = 2
_KEY = "handreid"  # the one key of ours in the metadata of the file


class Key(NamedTuple):
    """What an embedding is of. `condition` is the number that the model is told beside the pixels, if any; `inference`
    how a head that composes sentences was used.
    """

    file: str
    condition: int | None
    shown: Shown
    inference: Inference | None = None


@dataclass(frozen=True, eq=False)
class Kept:
    """What a run's file holds: a row of `embeddings` for each key, which picture each file holds, and the SHA-256 of
    the files by manifest and path.
    """

    model_hash: str
    keys: tuple[Key, ...] = ()
    embeddings: Float[np.ndarray, "kept dim"] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    pixels: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def of_pixels_alone(self) -> bool:
        """Whether it is sure, without loading it, that the model takes nothing else and has no modes."""
        return bool(self.keys) and (self.keys[0].condition, self.keys[0].inference) == (None, None)


@dataclass(frozen=True, eq=False)
class Contents:
    """Of some rows of a manifest what is on them. `files` are None for photos that are gone and that nobody knows;
    `pictures` are equal for the same picture, whatever its file.
    """

    files: tuple[str | None, ...]
    pictures: tuple[str, ...]

    def keys(self, conditions: Conditions | None, shown: Shown, inference: Inference | None = None) -> list[Key | None]:
        """Of each photo; None where nobody knows what was on it."""
        told = [None] * len(self.files) if conditions is None else conditions.tolist()
        return [
            None if file is None else Key(file, condition, shown, inference)
            for file, condition in zip(self.files, told, strict=True)
        ]


def read_kept(run: Run, model_hash: str, progress: Progress) -> Kept:
    """What is kept for this model; nothing, with a note, where the file is damaged."""
    if not run.embeddings.is_file():
        return Kept(model_hash)
    try:
        return _read(run, model_hash)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        progress.say(f"note: {run.embeddings} is damaged ({error}): it is not used, and photos are embedded again")
        return Kept(model_hash)


def _read(run: Run, model_hash: str) -> Kept:
    with safe_open(run.embeddings, framework="numpy") as file:
        facts = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        if facts.get("format", _FORMAT) != _FORMAT:
            return Kept(model_hash)  # of another version
        embeddings: np.ndarray = file.get_tensor("embeddings")
    if facts.pop("sha256", None) != _digest(facts, embeddings):
        raise ValueError("its content does not match its checksum")
    if facts["model"] != model_hash or facts["decoder"] != DECODER:
        return Kept(model_hash)
    return Kept(model_hash, tuple(Key(*key) for key in facts["keys"]), embeddings, facts["pixels"], facts["manifests"])


def contents_of(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], kept: Kept, progress: Progress, *, pictures: bool = False
) -> Contents:
    """What is on the photos now. With `pictures` each is decoded to know the same picture in another file; without, the
    file says which picture it is. Raises PhotoError for a photo that cannot be read, or with `pictures` not decoded.
    """
    names = manifest.table["path"].gather(rows).to_list()
    paths = [manifest.root / name for name in names]
    pixels = dict(kept.pixels)
    if pictures:
        hashes = photo_hashes(paths, progress=progress)
        now = [None if of is None else of.file for of in hashes]
        pixels |= {of.file: of.pixels for of in hashes if of is not None}
    else:
        now = file_hashes(paths)
    noted, stated = kept.manifests.get(manifest.hash, {}), manifest.table["sha256"].gather(rows).to_list()
    files = [file or noted.get(name) or then for file, name, then in zip(now, names, stated, strict=True)]
    shown = [str(path) if file is None else pixels.get(file, file) for file, path in zip(files, paths, strict=True)]
    return Contents(tuple(files), tuple(shown))


def first_of_each(names: Sequence[Hashable]) -> tuple[Int[np.ndarray, " distinct"], Int[np.ndarray, " photo"]]:
    """Where each name comes first, ascending; and for every one the place of its own among these."""
    place: dict[Hashable, int] = {}
    which = np.array([place.setdefault(name, len(place)) for name in names], np.int64)
    return np.unique(which, return_index=True)[1].astype(np.int64), which


def kept_or_made(
    kept: Kept,
    keys: Sequence[Key | None],
    make: Callable[[Int[np.ndarray, " position"]], Float[np.ndarray, "position dim"]],
) -> Float[np.ndarray, "photo dim"]:
    """An embedding for each key. `make` gives those that are not kept, each once, by position; it is asked once."""
    first, which = first_of_each([at if key is None else key for at, key in enumerate(keys)])
    there = {key: at for at, key in enumerate(kept.keys)}
    place = [there.get(key, -1) if (key := keys[at]) else -1 for at in first]
    known = np.array(place, np.int64)
    found = kept.embeddings[known] if len(kept.keys) else np.empty((len(first), 0), np.float32)
    if (known < 0).any():
        made = make(first[known < 0])
        found = found if len(kept.keys) else np.empty((len(first), made.shape[1]), np.float32)
        found[known < 0] = made
    each: Float[np.ndarray, "photo dim"] = found[which]
    return each


def keep(
    run: Run,
    manifest: Manifest,
    rows: Int[np.ndarray, " photo"],
    contents: Contents,
    made: Sequence[tuple[Sequence[Key | None], Float[np.ndarray, "photo dim"]]],
    model_hash: str,
    progress: Progress,
) -> None:
    """Adds embeddings of these rows, by their keys, to what the run's file holds now. A disk that takes none is no
    reason to stop: that is said.
    """
    kept = read_kept(run, model_hash, progress)
    there = dict(zip(kept.keys, kept.embeddings, strict=True))
    for keys, embeddings in made:
        there |= {key: one for key, one in zip(keys, embeddings, strict=True) if key is not None and key not in there}
    names = manifest.table["path"].gather(rows).to_list()
    seen = {name: file for name, file in zip(names, contents.files, strict=True) if file is not None}
    pixels = {
        file: picture
        for file, picture in zip(contents.files, contents.pictures, strict=True)
        if file is not None and picture != file
    }
    pixels = {**kept.pixels, **pixels}
    manifests = {**kept.manifests, manifest.hash: {**kept.manifests.get(manifest.hash, {}), **seen}}
    if len(there) == len(kept.keys) and (pixels, manifests) == (kept.pixels, kept.manifests):
        return
    facts = {
        "format": _FORMAT,
        "decoder": DECODER,
        "model": model_hash,
        "keys": [list(key) for key in there],
        "pixels": pixels,
        "manifests": manifests,
    }
    tensor = np.ascontiguousarray(np.stack(list(there.values())), np.float32)
    said = {_KEY: json.dumps({**facts, "sha256": _digest(facts, tensor)})}
    try:
        write_atomic(run.embeddings, lambda part: save_file({"embeddings": tensor}, part, said))
    except OutputError as error:
        progress.say(f"note: the embeddings could not be cached: {error}")


def _digest(facts: Mapping[str, Any], embeddings: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(f"{embeddings.dtype} {embeddings.shape}".encode())
    digest.update(np.ascontiguousarray(embeddings).view(np.uint8).data)
    return digest.hexdigest()


def embeddings_of(
    shots: Shots, contents: Contents, kept: Kept, conditions: Conditions | None, *, mirror: bool = False
) -> tuple[list[Key | None], Float[np.ndarray, "photos dim"]]:
    """Embeddings of all photos with the keys to keep them by; only what is not kept is decoded, each content once.

    `mirror`: of the mirror images, whose conditions are given. Raises PhotoError for a photo that is gone and not kept.
    """
    flip_tta = shots.recipe.evaluate.flip_tta
    shown: Shown = "mirror image" if mirror else "both" if flip_tta else "photo"
    keys = contents.keys(conditions, shown, shots.embedder.head.inference if composes(shots.embedder) else None)
    return keys, kept_or_made(kept, keys, lambda at: shots.embed(at, conditions, mirror=mirror))
