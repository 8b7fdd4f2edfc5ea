"""Who is trained and who is tested, and that both are looked at alike."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from handreid.build import build_augment, enlargement
from handreid.data.loading import decode_all
from handreid.data.sampling import TrainingPhotos
from handreid.inference import decode_rows
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos
from handreid.progress import NullProgress
from handreid.recipe import FineTune, Recipe
from handreid.runs.dataset import RunDataset
from handreid.runs.exposure import validated_rows
from handreid.runs.leakage import Leak, repeated_photos, split_leaks, tested_people
from handreid.runs.side_information import side_information_of
from handreid.training.checks.result import CheckResult, listed, verdict

PHOTOS = 2


def check_subject_disjoint(material: RunDataset) -> CheckResult:
    """No one who is tested trains or validates: no person, and no photo, whatever it is called.

    Those whom the gallery holds beside the tested (distractors) may train with another view, as in the papers. A split
    that was given (`prepared`) may test people who train: its notes say so, and only photos are looked at.
    """
    split = material.split
    wrong = [_known(leak) for leak in split_leaks(material)]
    repeated = repeated_photos(material)
    if repeated:
        wrong.append(
            f"{len(repeated)} validation photos are copies of training photos under other names: {listed(repeated)}"
        )
    people = len({split.subjects[row] for row in tested_people(split)})
    closed = set(validated_rows(split)) & set(split.train.tolist())
    how = "photos of seen subjects (a closed set)" if closed else "unseen subjects"
    found = f"{people} test subjects, none of them in training; validation uses {how}"
    if split.protocol == "prepared":
        found = f"{people} test subjects; the split is given by the manifest, so only photos were compared"
    advice = f"protocol {split.protocol}; check data.protocol and the manifest's split, and run `handreid data check`"
    return verdict("subject_disjoint", wrong, found, advice)


def _known(leak: Leak) -> str:
    part = "training" if leak.role == "train" else "validation"
    if leak.copies:
        return f"{leak.copies} test photos are also in {part}, by content: of {listed(leak.subjects)}"
    return f"{len(leak.subjects)} test subjects are also in {part}: {listed(leak.subjects)}"


def preprocessing(
    recipe: Recipe, stage: FineTune, embedder: Embedder, material: RunDataset, photos: TrainingPhotos | None = None
) -> CheckResult:
    """What reaches the tower of a photo is the same in training and at test but for the augmentations that are named.

    A few photos go both ways, augmentations off: bytes, and numbers at the tower's door. Of the stage's own `photos`,
    the stored bytes are compared with the file, and what comes out of the augmentation with the tower's size.
    """
    rows = material.split.train[:PHOTOS]
    wrong = []
    plain = stage.model_copy(update={"augment": (), "chirality": "none", "mix": None})
    trained, stored = _trained(rows, plain, embedder, material), _decoded(rows, stage, embedder, material)
    in_memory = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": "memory"})})
    tested = decode_rows(material.manifest, rows, in_memory, embedder, NullProgress())
    if tuple(tested.shape) != tuple(trained.shape):
        wrong.append(f"photos are {_size(tested)} at test and {_size(trained)} in training")
    elif not np.array_equal(tested, trained.numpy()):
        wrong.append(f"{_differing(tested, trained.numpy())} of the bytes of a photo differ between training and test")
    else:
        wrong += _at_the_door(embedder, material, rows, trained, tested)
    if photos is not None:
        wrong += _as_stored(photos, stage, embedder, stored)
    chosen: list[str] = [step.kind for step in stage.augment] + ([stage.mix.kind] if stage.mix else [])
    if stage.chirality != "none":
        chosen.append(stage.chirality)
    size = "x".join(map(str, embedder.preprocessing.size))
    found = f"{len(rows)} photos reach the tower alike, {size}, except for {', '.join(chosen) or 'nothing'}"
    advice = "both must decode with the model's Preprocessing; if the cache in $HANDREID_CACHE is old, remove it"
    return verdict("preprocessing", wrong, found, advice)


def _trained(rows: np.ndarray, plain: FineTune, embedder: Embedder, material: RunDataset) -> Tensor:
    decoded = _decoded(rows, plain, embedder, material)
    places = np.arange(len(rows))
    photos = TrainingPhotos(decoded, places, places, build_augment(plain, embedder.preprocessing))
    return photos[[(place, 0) for place in range(len(rows))]].photos


def _decoded(rows: np.ndarray, stage: FineTune, embedder: Embedder, material: RunDataset) -> np.ndarray:
    paths = material.manifest.paths()
    chosen = [paths[row] for row in rows]
    return decode_all(chosen, embedder.preprocessing, enlarge=enlargement(stage), cache="memory")


def _at_the_door(
    embedder: Embedder, material: RunDataset, rows: np.ndarray, trained: Tensor, tested: np.ndarray
) -> list[str]:
    conditions = side_information_of(embedder, material.manifest.table[rows])[0]
    known = None if conditions is None else torch.from_numpy(conditions)
    labels = torch.zeros(len(rows), dtype=torch.int64)

    def train() -> None:
        embedder(trained.to(embedder.mean.device), known, labels=labels)

    def test() -> None:
        embed_photos(embedder, tested, conditions=conditions)

    ours, theirs = _reaches(embedder.backbone, train), _reaches(embedder.backbone, test)
    if ours.shape == theirs.shape and torch.equal(ours, theirs):
        return []
    scales = [f"mean {float(value.mean()):.4g}, deviation {float(value.std()):.4g}" for value in (ours, theirs)]
    return [f"the tower gets different values for the same photo: in training {scales[0]}, at test {scales[1]}"]


class _ArrivedError(Exception):
    """The photos are at the tower: no need to go on."""


def _reaches(backbone: nn.Module, way: Callable[[], None]) -> Tensor:
    found: list[Tensor] = []

    def note(_: nn.Module, arguments: Any) -> None:
        found.append(arguments[0].clone())
        raise _ArrivedError

    with _hooked(backbone, note), suppress(_ArrivedError):
        way()
    return found[0]


@contextmanager
def _hooked(module: nn.Module, note: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    handle = module.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
        for part, training in modes.items():
            part.training = training


def _as_stored(photos: TrainingPhotos, stage: FineTune, embedder: Embedder, decoded: np.ndarray) -> list[str]:
    wrong = []
    kept = np.stack([photos.photos[int(photos.rows[place])] for place in range(len(decoded))])
    if kept.shape != decoded.shape:
        wrong.append(f"stored photos are {_size(kept)}, decoded again {_size(decoded)}")
    elif not np.array_equal(kept, decoded):
        wrong.append("cached photos differ from the files as they are decoded now")
    size = tuple(photos[[(0, 0)]].photos.shape[2:])
    if size != embedder.preprocessing.size:
        wrong.append(f"augmented photos are {size[0]}x{size[1]}, but the tower takes {embedder.preprocessing.size}")
    transforms: Collection[object] = getattr(photos.augment, "transforms", ())
    if stage.chirality != "flip" and any(isinstance(step, v2.RandomHorizontalFlip) for step in transforms):
        wrong.append(f"training flips photos, but chirality is {stage.chirality!r}: a right hand becomes a left one")
    return wrong


def _size(photos: Any) -> str:
    return f"{photos.shape[2]}x{photos.shape[3]}"


def _differing(one: np.ndarray, other: np.ndarray) -> str:
    return f"{(one != other).mean():.1%}"
