"""The embedder, which is trained, saved, evaluated and served: backbone + head + preprocessing, in one file.

* `embed` takes no labels, so that no information on the identity can reach an embedding. Beside pixels it takes the
  conditions of the side information that its configuration names, if any (see `side_information.py`). Only `forward`
  takes labels, for training.
* The file is a safetensors file with the configuration in its metadata; loading it needs neither recipe nor original
  weights. It holds the hash of its content.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from handreid.errors import RecipeError, WeightsError
from handreid.models.backbone import Backbone
from handreid.models.clip import build_text_tower, load_clip
from handreid.models.embedded_weights import EMBEDDED, EMBEDDED_BACKBONE, embedded_file, is_embedded
from handreid.models.exported_towers import exported_facts
from handreid.models.heads import Head, build_head
from handreid.models.lora import merged_state
from handreid.models.promptsg_head import KINDS, JointSpace, build_semantic_head, strip_text_tower
from handreid.models.sealed import load_sealed, save_sealed
from handreid.models.text import TextEncoder
from handreid.types import FeatureName, Labels, Neck, Outputs, Preprocessing

FORMAT = 3
_FROZEN = "frozen."
_KEY = "handreid"  # of the file's metadata


class _Stored(BaseModel):
    """What `Embedder.config` gives, as read from a file."""

    backbone: dict[str, Any]
    preprocessing: Preprocessing
    head: dict[str, Any]
    features: tuple[FeatureName, ...]
    necks: tuple[FeatureName, ...]
    test_features: tuple[FeatureName, ...]
    test_neck: Neck


@runtime_checkable
class HasModel(Protocol):
    """A run."""

    @property
    def model(self) -> Path: ...


class Embedder(nn.Module):
    """Photos of hands to embeddings of unit length.

    `head` is the head's configuration (`kind` and arguments). `features` names the backbone's features that go into the
    head, `necks` those of them that need a neck, and `test_features` those that are concatenated to the embedding,
    taken before or after the neck; `parts` stands for all features that the head makes from the patch grid. Features
    are concatenated without normalisation, as in CLIP-ReID, PCB and MGN, and the result is normalised: a feature with a
    larger norm weighs more in the cosine. `text` is the text tower, for a head that composes sentences: it is never
    trained. Raises RecipeError when the head does not fit the backbone's patch grid, or its text tower.
    """

    def __init__(
        self,
        backbone: Backbone,
        preprocessing: Preprocessing,
        *,
        head: dict[str, Any],
        features: tuple[FeatureName, ...] = ("joint",),
        necks: tuple[FeatureName, ...] = (),
        test_features: tuple[FeatureName, ...] = ("joint",),
        test_neck: Neck = "before",
        text: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.preprocessing = preprocessing
        self.head = _head(head, {name: backbone.widths[name] for name in features}, necks, backbone, text)
        self.test_features = test_features
        self.test_neck: Neck = test_neck
        self._head_config = head
        self._features = features
        self._necks = necks
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        widths = self.head.before if self.test_neck == "before" else self.head.after
        return sum(widths[name] for name in self.head.names(self.test_features))

    def normalise(self, photos: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return photos.float().div(255).sub(self.mean).div(self.std)

    def forward(
        self,
        photos: UInt8[Tensor, "batch 3 height width"],
        conditions: Int[Tensor, " batch"] | None = None,
        *,
        labels: Labels | None = None,
    ) -> Outputs:
        """`labels` are those of training photos; they are not used in eval mode."""
        return self.head.outputs(self.backbone(self.normalise(photos), conditions), labels)

    def concat_features(self, outputs: Outputs) -> Float[Tensor, "batch dim"]:
        """The concatenated test features, before normalisation."""
        features = outputs.at(self.test_neck)
        return torch.cat([features[name] for name in self.head.names(self.test_features)], dim=1)

    @torch.inference_mode()
    def embed(
        self,
        photos: UInt8[Tensor, "batch 3 height width"],
        conditions: Int[Tensor, " batch"] | None = None,
        *,
        flip_tta: bool = False,
    ) -> Float[Tensor, "batch dim"]:
        """Embeddings of unit length, always in eval mode; `conditions` as in `Backbone.forward`.

        With `flip_tta`, the features of photo and mirror image are summed first. A mirrored right hand looks like a
        left hand: where sides are different identities this mixes them. If `side` is side information, the mirror image
        has the other side.
        """
        with self.evaluating():
            embedding = self.concat_features(self(photos, conditions))
            if flip_tta:
                side = self.backbone.side_information
                if side is not None and conditions is not None:
                    conditions = side.mirrored(conditions)
                embedding = embedding + self.concat_features(self(photos.flip(-1), conditions))
        return F.normalize(embedding.float(), dim=1)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode within the context, the previous mode afterwards."""
        if not any(module.training for module in self.modules()):
            yield
            return
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def save(self, path: Path, *, words: bool = True, before: Callable[[Path], object] | None = None) -> None:
        """Writes the file atomically: a reader sees the old model or the new one, never a part.

        LoRA adapters are written merged. Without `words` the file does not hold the text tower and other parameters
        that only composed sentences need. `before` as in `write_atomic`. Raises RecipeError without `words` when the
        head composes sentences at test.
        """
        if not words and self.head.inference == "composed":
            raise RecipeError(
                "inference: composed needs the text tower, which this model was saved without: save both, or use "
                "inference: fixed"
            )
        whole = merged_state(self) | {_FROZEN + name: value for name, value in self.head.frozen().items()}
        state = whole if words else strip_text_tower(whole, _FROZEN)
        save_sealed(path, state, _KEY, self.config(), before=before)

    @classmethod
    def load(cls, path: Path | str | HasModel) -> "Embedder":
        """The embedder of a model's file, a run or its folder, in eval mode, on the CPU; `handreid` is that of the
        weights in this package, whatever lies at that path.

        Raises WeightsError when the file was not written by `save`, or was changed since.
        """
        if is_embedded(path):
            return cls._embedded()
        path = _file_of(path)
        facts, state = load_sealed(path, _KEY, "handreid model", FORMAT)
        frozen = {name: state.pop(name) for name in list(state) if name.startswith(_FROZEN)}
        try:
            config = _Stored.model_validate(facts)
            embedder = cls(
                Backbone.from_config(config.backbone),
                config.preprocessing,
                head=config.head,
                features=config.features,
                necks=config.necks,
                test_features=config.test_features,
                test_neck=config.test_neck,
                text=build_text_tower(config.backbone) if frozen else None,
            )
            embedder.load_state_dict(state)
            embedder.head.load_frozen({name.removeprefix(_FROZEN): value for name, value in frozen.items()})
        except ValidationError as error:
            raise WeightsError(f"model {path} was not written by handreid: {_first(error)}") from None
        except (
            RecipeError,
            RuntimeError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
        ) as error:
            reason = error if isinstance(error, RecipeError) else _line(error)
            raise WeightsError(f"model {path} cannot be built: {reason}") from None
        return embedder.eval()

    @classmethod
    def _embedded(cls) -> "Embedder":
        """The package's image tower without a head; photos are prepared as in training, at the backbone's own size."""
        towers = load_clip(EMBEDDED_BACKBONE, weights=EMBEDDED)
        backbone = Backbone(towers.image, towers.config)
        # of real photos, which it has not seen, this feature finds more than `joint` (docs/results.md)
        names: tuple[FeatureName, ...] = ("pooled",)
        return cls(
            backbone,
            dataclasses.replace(exported_facts(embedded_file()).preprocessing, size=backbone.size),
            head={"kind": "linear"},
            features=names,
            test_features=names,
        ).eval()

    def config(self) -> dict[str, Any]:
        """What `load` builds an embedder from, before it loads the weights."""
        preprocessing = dataclasses.asdict(self.preprocessing)
        return {
            "format": FORMAT,
            "backbone": self.backbone.config,
            "preprocessing": {name: preprocessing[name] for name in self.preprocessing.settings},
            "head": {**self._head_config, **self.head.facts},
            "features": self._features,
            "necks": self._necks,
            "test_features": self.test_features,
            "test_neck": self.test_neck,
        }


def _file_of(source: Path | str | HasModel) -> Path:
    if not isinstance(source, Path | str):
        return source.model
    path = Path(source)
    return path / "model.safetensors" if path.is_dir() else path


def _head(
    config: dict[str, Any],
    widths: dict[str, int],
    necked: tuple[str, ...],
    backbone: Backbone,
    text: TextEncoder | None,
) -> Head:
    if config["kind"] not in KINDS:
        return build_head(config, widths, necked, backbone.grid)
    space = JointSpace(backbone.widths["joint"], text, backbone.projection)
    return build_semantic_head(config, widths, necked, backbone.grid, space)


def _first(error: ValidationError) -> str:
    """The first problem, in one line."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'its metadata'}: {problem['msg']}"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
