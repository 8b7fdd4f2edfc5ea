"""Lightning module of the `pretrain` stage: towers learn from views of photos and from captions."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from handreid.data.sampling import Batches
from handreid.errors import RunError
from handreid.models.embedder import Embedder
from handreid.models.text import TextEncoder
from handreid.recipe import Pretrain
from handreid.training.optimizers import Group, Part, encoder_parts, parameter_groups
from handreid.training.stages.photo_module import PhotoModule
from handreid.training.stages.pretrain.statistics import PREFIX, Spread, signs_of_collapse
from handreid.training.stages.pretrain.terms import PretrainTerm
from handreid.training.stages.pretrain.terms.base import Encoded, Result
from handreid.training.stages.pretrain.views import ViewedPhotos, Views
from handreid.types import Features


class PretrainModule(PhotoModule):
    """Trains the towers that `stage.learns` names, and the terms' projections.

    The head of `embedder` is for later stages and stays as it is. Parameters that do not learn here are in `held`.
    """

    photos: ViewedPhotos

    def __init__(
        self,
        embedder: Embedder,
        text: TextEncoder,
        terms: Mapping[str, PretrainTerm],
        stage: Pretrain,
        photos: ViewedPhotos,
        batches: Batches,
        *,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__(stage, photos, batches, seed=seed, workers=workers)
        self.embedder = embedder
        self.terms = nn.ModuleDict(terms)
        self.stage = stage
        self.learned = text if stage.learns != "image" else None
        self.held: list[nn.Parameter] = []
        self._outside = (text,)  # a frozen text tower is in no checkpoint
        self.hold(embedder.head)
        if stage.learns == "text":
            self.hold(embedder.backbone)
        if stage.learns == "image":
            self.hold(text)
        self.spreads: dict[str, Spread] = {}

    def hold(self, part: nn.Module) -> None:
        """Keeps the part's parameters as they are during this stage."""
        for parameter in part.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self.held.append(parameter)

    def train(self, mode: bool = True) -> "PretrainModule":
        """As `nn.Module.train`, but what does not learn stays in eval mode."""
        super().train(mode)
        self.embedder.head.eval()
        if self.stage.learns == "text":
            self.embedder.eval()
        return self

    @property
    def text(self) -> TextEncoder:
        return self._outside[0]

    @property
    def result(self) -> Embedder:
        return self.embedder

    @property
    def learned_text(self) -> TextEncoder | None:
        return self.learned

    def on_fit_start(self) -> None:
        self.text.to(self.device)

    def on_train_start(self) -> None:
        """Raises RunError if a resumed queue holds photos that are not this stage's."""
        for name, term in self.named_terms():
            places = term.held_places()
            if places is not None and len(places) and int(places.max()) >= len(self.photos):
                raise RunError(f"the queue of {name} holds photos that are not this stage's: train the stage again")

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.spreads = {}

    def training_step(self, batch: Views, index: int) -> Tensor:
        self.seed_step(index)
        encoded = self.encode(batch)
        results: dict[str, Result] = {name: term(encoded) for name, term in self.named_terms()}
        losses = {name: result.loss for name, result in results.items()}
        weighted = [term.weight * loss for term, loss in zip(self.stage.terms, losses.values(), strict=True)]
        total = torch.stack(weighted).sum()
        self._note(loss=total, **losses)
        for term, result in zip(self.stage.terms, results.values(), strict=True):
            self._note(**{f"{PREFIX}{term.kind}_{name}": value for name, value in result.numbers.items()})
            for name, features in result.watched.items():
                of_term = f"{term.kind}_{name}" if name else term.kind
                self.spreads.setdefault(of_term, Spread()).add(features)
        return total

    def encode(self, batch: Views) -> Encoded:
        pixels = [self.embedder.normalise(batch.photos[:, view]) for view in range(batch.photos.shape[1])]
        views = max(term.encoded_views for _, term in self.named_terms())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage.learns != "text"):
            features = self._features(pixels[:views], batch.conditions)
        read = (batch.labels, batch.places, batch.conditions, batch.tokens, batch.measured)
        return Encoded(pixels, features, *read)

    def after_step(self) -> None:
        for _, term in self.named_terms():
            term.after_step(self.embedder.backbone)

    def epoch_means(self) -> dict[str, float]:
        """Also the spread and the effective rank of the features over the epoch."""
        means = super().epoch_means()
        for name, spread in self.spreads.items():
            means[f"{PREFIX}{name}_spread"] = spread.spread()
            means[f"{PREFIX}{name}_effective_rank"] = spread.effective_rank()
        return means

    def judge_epoch(self, numbers: Mapping[str, Any]) -> None:
        """Raises RunError for collapsed features."""
        limits = self.stage.collapse
        if limits is None or self.current_epoch < limits.after_epochs:
            return
        watched = {name: value for name, value in numbers.items() if name.startswith(PREFIX)}
        signs = signs_of_collapse(watched, limits)
        if signs:
            raise RunError(
                f"features have collapsed in epoch {self.current_epoch + 1} of {self.epochs}: {'; '.join(signs)}. "
                "Lower optimizer.lr or weight_decay, lengthen the warm-up, use larger batches or another temperature; "
                "`collapse` of the stage has the limits"
            )

    def groups(self) -> list[Group]:
        """All trainable parameters, each once: image tower, modules added to it, text tower, the terms' layers."""
        settings = self.stage.optimizer
        new, backbone = settings.lr * settings.new_layers, self.embedder.backbone
        parts = encoder_parts(backbone.layers, settings.lr, settings.layer_decay)
        parts += [Part(name, added, new) for name, added in backbone.added.items()]
        if self.learned is not None:
            parts.append(Part("text tower", list(self.learned.parameters()), settings.lr))
        parts += [Part(name, term.new_layers(), new) for name, term in self.named_terms()]
        biases = [parameter for name, parameter in self.named_parameters() if name.endswith("bias")]
        return parameter_groups(
            parts, weight_decay=settings.weight_decay, biases=biases, bias_factor=settings.bias_factor
        )

    @property
    def views(self) -> int:
        return self.photos.views

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        return batch.to(device)

    def named_terms(self) -> list[tuple[str, PretrainTerm]]:
        return [(name, cast(PretrainTerm, term)) for name, term in self.terms.items()]

    def _features(self, pixels: list[Tensor], conditions: Tensor | None) -> list[Features]:
        """View by view, so that a batch norm has the statistics of one view, as in MoCo v3."""
        return [self.embedder.backbone(view, conditions) for view in pixels]
