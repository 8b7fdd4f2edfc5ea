"""Cache of the embeddings of a run's model, by content of the photo: nothing is embedded twice.

* One file in the run's folder, for one model, identified by its file's hash, which covers weights and preprocessing.
  The key of an embedding is the SHA-256 of the photo's file, its landmarks if the model aligns hands, whether it was
  mirrored if the model mirrors left ones, the side information given to the model, whether it was this picture, its
  mirror image or both, and the head's inference mode. So another view, protocol or label on the same photos reuses
  them, and so do copies of a photo.
* The file holds the SHA-256 of all its content. A file that does not match it is not used: its photos are embedded
  again, with a note. It never gives wrong numbers.
* Missing photos cannot have changed: their hash is the one that the file noted for this manifest, else the manifest's
  `sha256`. So results can be recomputed without the photos.
* Two evaluations at the same time both add their embeddings to the file as they last read it, and replace it whole: one
  may lose what the other added in between, which costs time and changes no number.
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
from handreid.data.photo_file import marks_of
from handreid.data.photo_hashes import file_hashes, photo_hashes
from handreid.errors import OutputError
from handreid.files import write_atomic
from handreid.inference import Shots, composes
from handreid.models.extraction import Conditions
from handreid.progress import Progress
from handreid.runs.folder import Run
from handreid.types import Inference, Reading

Shown = Literal["photo", "mirror image", "both"]
_FORMAT = 2
_KEY = "handreid"  # our key in the metadata of the file


class Key(NamedTuple):
    """What an embedding was computed from. `file` is its SHA-256, followed by `PhotoFile.marks` where there are any.
    `condition` is the number of the side information, if any; `inference` the mode of a head that composes sentences.
    """

    file: str
    condition: int | None
    shown: Shown
    inference: Inference | None = None


@dataclass(frozen=True, eq=False)
class EmbeddingCache:
    """Content of the cache: a row of `embeddings` for each key, the picture of each file, and the SHA-256 of files by
    manifest and path.
    """

    model_hash: str
    keys: tuple[Key, ...] = ()
    embeddings: Float[np.ndarray, "kept dim"] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    pixels: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def of_pixels_alone(self) -> bool:
        """True if the model certainly takes no side information and has no modes, known without loading it."""
        return bool(self.keys) and (self.keys[0].condition, self.keys[0].inference) == (None, None)


@dataclass(frozen=True, eq=False)
class Contents:
    """Contents of some rows of a manifest. `files` are SHA-256, None for missing photos without a known hash;
    `pictures` are equal for identical pictures in whatever files. `marks` name what else changes the model's input
    (`PhotoFile.marks`); None if nothing does.
    """

    files: tuple[str | None, ...]
    pictures: tuple[str, ...]
    marks: tuple[str, ...] | None = None

    def keys(
        self, conditions: Conditions | None, variant: Shown, inference: Inference | None = None
    ) -> list[Key | None]:
        """Of each photo; None where its content is not known."""
        numbers = [None] * len(self.files) if conditions is None else conditions.tolist()
        ends = [f" {marks}" if marks else "" for marks in self.marks or [""] * len(self.files)]
        return [
            None if file is None else Key(f"{file}{end}", condition, variant, inference)
            for file, end, condition in zip(self.files, ends, numbers, strict=True)
        ]


def read_cache(run: Run, model_hash: str, progress: Progress) -> EmbeddingCache:
    """The cache of this model; empty, with a note, where the file is damaged."""
    if not run.embeddings.is_file():
        return EmbeddingCache(model_hash)
    try:
        return _read(run, model_hash)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        progress.say(f"note: {run.embeddings} is damaged ({error}): it is not used, and photos are embedded again")
        return EmbeddingCache(model_hash)


def _read(run: Run, model_hash: str) -> EmbeddingCache:
    with safe_open(run.embeddings, framework="numpy") as file:
        facts = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        if facts.get("format", _FORMAT) != _FORMAT:
            return EmbeddingCache(model_hash)  # written by another version
        embeddings: np.ndarray = file.get_tensor("embeddings")
    if facts.pop("sha256", None) != _digest(facts, embeddings):
        raise ValueError("its content does not match its checksum")
    if facts["model"] != model_hash or facts["decoder"] != DECODER:
        return EmbeddingCache(model_hash)
    return EmbeddingCache(
        model_hash, tuple(Key(*key) for key in facts["keys"]), embeddings, facts["pixels"], facts["manifests"]
    )


def contents_of(
    manifest: Manifest,
    rows: Int[np.ndarray, " photo"],
    cached: EmbeddingCache,
    progress: Progress,
    reading: Reading,
    *,
    decode: bool = False,
) -> Contents:
    """Current contents of the photos, as a model with this `reading` gets them.

    With `decode`, photos are decoded to identify equal pictures in different files; otherwise pictures are as the cache
    noted them, else by file. Raises PhotoError for a photo that cannot be read, or with `decode` not decoded.
    """
    names = manifest.table["path"].gather(rows).to_list()
    paths = [manifest.root / name for name in names]
    pixels = dict(cached.pixels)
    if decode:
        hashes = photo_hashes(paths, progress=progress)
        current = [None if photo is None else photo.file for photo in hashes]
        pixels |= {photo.file: photo.pixels for photo in hashes if photo is not None}
    else:
        current = file_hashes(paths)
    noted, stated = cached.manifests.get(manifest.hash, {}), manifest.table["sha256"].gather(rows).to_list()
    files = [file or noted.get(name) or stored for file, name, stored in zip(current, names, stated, strict=True)]
    pictures = [str(path) if file is None else pixels.get(file, file) for file, path in zip(files, paths, strict=True)]
    return Contents(tuple(files), tuple(pictures), marks_of(manifest, rows, reading))


def first_of_each(names: Sequence[Hashable]) -> tuple[Int[np.ndarray, " distinct"], Int[np.ndarray, " photo"]]:
    """Positions of the first of each distinct name, ascending; and for every name its index among these."""
    place: dict[Hashable, int] = {}
    which = np.array([place.setdefault(name, len(place)) for name in names], np.int64)
    return np.unique(which, return_index=True)[1].astype(np.int64), which


def cached_or_computed(
    cached: EmbeddingCache,
    keys: Sequence[Key | None],
    make: Callable[[Int[np.ndarray, " position"]], Float[np.ndarray, "position dim"]],
) -> Float[np.ndarray, "photo dim"]:
    """An embedding for each key. `make` computes those not cached, each once, by position; called at most once."""
    firsts, which = first_of_each([position if key is None else key for position, key in enumerate(keys)])
    row_of = {key: position for position, key in enumerate(cached.keys)}
    place = [row_of.get(key, -1) if (key := keys[position]) else -1 for position in firsts]
    rows = np.array(place, np.int64)
    embeddings = cached.embeddings[rows] if len(cached.keys) else np.empty((len(firsts), 0), np.float32)
    if (rows < 0).any():
        computed = make(firsts[rows < 0])
        embeddings = embeddings if len(cached.keys) else np.empty((len(firsts), computed.shape[1]), np.float32)
        embeddings[rows < 0] = computed
    each: Float[np.ndarray, "photo dim"] = embeddings[which]
    return each


def add_to_cache(
    run: Run,
    manifest: Manifest,
    rows: Int[np.ndarray, " photo"],
    contents: Contents,
    computed: Sequence[tuple[Sequence[Key | None], Float[np.ndarray, "photo dim"]]],
    model_hash: str,
    progress: Progress,
) -> None:
    """Adds embeddings of these rows, by their keys, to the run's file. If it cannot be written, that is only noted."""
    cached = read_cache(run, model_hash, progress)
    embedding_of = dict(zip(cached.keys, cached.embeddings, strict=True))
    for keys, embeddings in computed:
        embedding_of |= {
            key: embedding
            for key, embedding in zip(keys, embeddings, strict=True)
            if key is not None and key not in embedding_of
        }
    names = manifest.table["path"].gather(rows).to_list()
    file_of = {name: file for name, file in zip(names, contents.files, strict=True) if file is not None}
    pixels = {
        file: picture
        for file, picture in zip(contents.files, contents.pictures, strict=True)
        if file is not None and picture != file
    }
    pixels = {**cached.pixels, **pixels}
    manifests = {**cached.manifests, manifest.hash: {**cached.manifests.get(manifest.hash, {}), **file_of}}
    if len(embedding_of) == len(cached.keys) and (pixels, manifests) == (cached.pixels, cached.manifests):
        return
    facts = {
        "format": _FORMAT,
        "decoder": DECODER,
        "model": model_hash,
        "keys": [list(key) for key in embedding_of],
        "pixels": pixels,
        "manifests": manifests,
    }
    tensor = np.ascontiguousarray(np.stack(list(embedding_of.values())), np.float32)
    metadata = {_KEY: json.dumps({**facts, "sha256": _digest(facts, tensor)})}
    try:
        write_atomic(run.embeddings, lambda part: save_file({"embeddings": tensor}, part, metadata))
    except OutputError as error:
        progress.say(f"note: the embeddings could not be cached: {error}")


def _digest(facts: Mapping[str, Any], embeddings: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(f"{embeddings.dtype} {embeddings.shape}".encode())
    digest.update(np.ascontiguousarray(embeddings).view(np.uint8).data)
    return digest.hexdigest()


def embeddings_of(
    shots: Shots, contents: Contents, cached: EmbeddingCache, conditions: Conditions | None, *, mirror: bool = False
) -> tuple[list[Key | None], Float[np.ndarray, "photos dim"]]:
    """Keys and embeddings of all photos; only what is not cached is decoded, each content once.

    `mirror`: of the mirror images, whose conditions are given. Raises PhotoError for a missing photo without embedding.
    """
    flip_tta = shots.recipe.evaluate.flip_tta
    variant: Shown = "mirror image" if mirror else "both" if flip_tta else "photo"
    keys = contents.keys(conditions, variant, shots.embedder.head.inference if composes(shots.embedder) else None)
    return keys, cached_or_computed(cached, keys, lambda positions: shots.embed(positions, conditions, mirror=mirror))
