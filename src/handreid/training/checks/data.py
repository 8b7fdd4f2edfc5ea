"""Subject-disjoint split, and the same preprocessing in training and test."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from handreid.build import build_augment, enlargement
from handreid.data.loading import decode_all
from handreid.data.photo_file import check_hands, photo_files
from handreid.data.sampling import TrainingPhotos
from handreid.data.splits import evaluated_rows
from handreid.inference import decode_rows
from handreid.models.embedder import Embedder
from handreid.models.extraction import embed_photos
from handreid.progress import NullProgress
from handreid.recipe import FineTune, Pretrain, Recipe
from handreid.runs.dataset import RunDataset
from handreid.runs.exposure import validated_rows
from handreid.runs.leakage import Leak, repeated_photos, split_leaks, tested_people
from handreid.runs.side_information import side_information_of
from handreid.training.checks.result import CheckResult, listed, verdict

PHOTOS = 2


def check_subject_disjoint(material: RunDataset) -> CheckResult:
    """No test subject and no test photo, under whatever name, is in training or validation.

    Distractors (gallery subjects without queries) may be in training with another view, as in the papers. A given split
    (`prepared`) may test training subjects: its notes say so, and only photos are compared.
    """
    split = material.split
    wrong = [_leak_message(leak) for leak in split_leaks(material)]
    repeated = repeated_photos(material)
    if repeated:
        wrong.append(
            f"{len(repeated)} validation photos are copies of training photos under other names: {listed(repeated)}"
        )
    people = len({split.subjects[row] for row in tested_people(split)})
    closed = set(validated_rows(split)) & set(split.train.tolist())
    how = "photos of seen subjects (a closed set)" if closed else "unseen subjects"
    summary = f"{people} test subjects, none of them in training; validation uses {how}"
    if split.protocol == "prepared":
        summary = f"{people} test subjects; the split is given by the manifest, so only photos were compared"
    advice = f"protocol {split.protocol}; check data.protocol and the manifest's split, and run `handreid data check`"
    return verdict("subject_disjoint", wrong, summary, advice)


def _leak_message(leak: Leak) -> str:
    part = "training" if leak.role == "train" else "validation"
    if leak.copies:
        return f"{leak.copies} test photos are also in {part}, by content: of {listed(leak.subjects)}"
    return f"{len(leak.subjects)} test subjects are also in {part}: {listed(leak.subjects)}"


def preprocessing(
    recipe: Recipe,
    stage: FineTune | Pretrain,
    embedder: Embedder,
    material: RunDataset,
    photos: TrainingPhotos | None = None,
) -> CheckResult:
    """The tower's input for a photo is the same in training and at test, except for the augmentations of the recipe.

    A few photos are processed both ways without augmentation: bytes and the tower's input values must be equal. Of the
    stage's own `photos`, stored bytes are compared with the decoded file, and augmented ones with the tower's size.
    Where the model aligns hands, both ways align: photos with a hand are taken; and of both sides, where it mirrors.
    """
    places = _sample(embedder, material)
    rows = material.split.train[places]
    wrong = []
    plain = stage.model_copy(update={"augment": (), "chirality": "none"})
    trained, stored = _trained(rows, plain, embedder, material), _decoded(rows, stage, embedder, material)
    in_memory = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": "memory"})})
    tested = decode_rows(material.manifest, rows, in_memory, embedder, NullProgress())
    if tuple(tested.shape) != tuple(trained.shape):
        wrong.append(f"photos are {_size(tested)} at test and {_size(trained)} in training")
    elif not np.array_equal(tested, trained.numpy()):
        wrong.append(f"{_differing(tested, trained.numpy())} of the bytes of a photo differ between training and test")
    else:
        wrong += _tower_inputs_differ(embedder, material, rows, trained, tested)
    if photos is not None:
        wrong += _stored_differ(photos, stage, embedder, places, stored)
    differences: list[str] = [step.kind for step in stage.augment]
    if isinstance(stage, FineTune) and stage.mix:
        differences.append(stage.mix.kind)
    if stage.chirality != "none":
        differences.append(stage.chirality)
    size = "x".join(map(str, embedder.preprocessing.size))
    alignment = embedder.preprocessing.alignment
    aligned = "" if alignment is None else f" and aligned ({alignment.kind})"
    aligned += " and left hands mirrored" if embedder.preprocessing.mirrors else ""
    rest = ", ".join(differences) or "nothing"
    summary = f"{len(rows)} photos reach the tower alike, {size}{aligned}, except for {rest}"
    advice = "both must decode with the model's Preprocessing; if the cache in $HANDREID_CACHE is old, remove it"
    return verdict("preprocessing", wrong, summary, advice)


def check_landmarks(embedder: Embedder, material: RunDataset) -> None:
    """Raises DataError if the model aligns or mirrors hands, and photos to train, validate or test cannot be: before
    the first step, rather than after the last.
    """
    if not (embedder.preprocessing.aligns or embedder.preprocessing.mirrors):
        return
    split = material.split
    rows = np.unique(np.concatenate([split.train, split.validation_rows, evaluated_rows(split)]))
    check_hands(photo_files(material.manifest, rows), embedder.preprocessing)


def _sample(embedder: Embedder, material: RunDataset) -> np.ndarray:
    """Places of the first training photos: with a hand if hands are aligned, and of both sides if left ones are
    mirrored, where there are such photos.
    """
    read, places = embedder.preprocessing, list(range(len(material.split.train)))
    if read.aligns or read.mirrors:
        photos = photo_files(material.manifest, material.split.train)
        if read.aligns:
            places.sort(key=lambda place: photos[place].hand is None)
        is_mirrored = [photos[place].is_mirrored(read) for place in places]
        first_of_each = [places[is_mirrored.index(mirror)] for mirror in (True, False) if mirror in is_mirrored]
        places = list(dict.fromkeys([*first_of_each, *places]))
    return np.array(places[:PHOTOS], np.int64)


def _trained(rows: np.ndarray, plain: FineTune | Pretrain, embedder: Embedder, material: RunDataset) -> Tensor:
    decoded = _decoded(rows, plain, embedder, material)
    places = np.arange(len(rows))
    photos = TrainingPhotos(decoded, places, places, build_augment(plain, embedder.preprocessing))
    return photos[[(place, 0) for place in range(len(rows))]].photos


def _decoded(rows: np.ndarray, stage: FineTune | Pretrain, embedder: Embedder, material: RunDataset) -> np.ndarray:
    photos = photo_files(material.manifest, rows)
    return decode_all(photos, embedder.preprocessing, enlarge=enlargement(stage), cache="memory")


def _tower_inputs_differ(
    embedder: Embedder, material: RunDataset, rows: np.ndarray, trained: Tensor, tested: np.ndarray
) -> list[str]:
    conditions = side_information_of(embedder, material.manifest.table[rows])[0]
    batch_conditions = None if conditions is None else torch.from_numpy(conditions)
    labels = torch.zeros(len(rows), dtype=torch.int64)

    def train() -> None:
        embedder(trained.to(embedder.mean.device), batch_conditions, labels=labels)

    def test() -> None:
        embed_photos(embedder, tested, conditions=conditions)

    in_training, at_test = _tower_input(embedder.backbone, train), _tower_input(embedder.backbone, test)
    if in_training.shape == at_test.shape and torch.equal(in_training, at_test):
        return []
    scales = [f"mean {float(value.mean()):.4g}, deviation {float(value.std()):.4g}" for value in (in_training, at_test)]
    return [f"the tower gets different values for the same photo: in training {scales[0]}, at test {scales[1]}"]


class _ArrivedError(Exception):
    """Stops a forward pass once the tower's input is recorded."""


def _tower_input(backbone: nn.Module, way: Callable[[], None]) -> Tensor:
    inputs: list[Tensor] = []

    def note(_: nn.Module, arguments: Any) -> None:
        inputs.append(arguments[0].clone())
        raise _ArrivedError

    with _hooked(backbone, note), suppress(_ArrivedError):
        way()
    return inputs[0]


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


def _stored_differ(
    photos: TrainingPhotos, stage: FineTune | Pretrain, embedder: Embedder, places: np.ndarray, decoded: np.ndarray
) -> list[str]:
    wrong = []
    stored = np.stack([photos.photos[int(photos.rows[place])] for place in places])
    if stored.shape != decoded.shape:
        wrong.append(f"stored photos are {_size(stored)}, decoded again {_size(decoded)}")
    elif not np.array_equal(stored, decoded):
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


def _differing(tested: np.ndarray, trained: np.ndarray) -> str:
    return f"{(tested != trained).mean():.1%}"
