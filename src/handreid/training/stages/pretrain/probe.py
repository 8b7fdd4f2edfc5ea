"""Interface of the `pretrain` stage for the checks before the first step."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handreid.data.splits import evaluated_rows
from handreid.training.checks import CheckResult, Pass, Probe, initial_state
from handreid.training.checks import data as data_checks
from handreid.training.checks.probe import Question
from handreid.training.checks.result import verdict
from handreid.training.context import Job
from handreid.training.stages.pretrain.module import PretrainModule
from handreid.training.stages.pretrain.terms.base import Result


class PretrainProbe(Probe[PretrainModule]):
    moving = frozenset({"encoder", "text tower"})

    @property
    def labels(self) -> Tensor | None:
        return self.module.photos.photos.labels if self.module.stage.reads_identities else None

    def one_pass(self, batch: Any) -> Pass:
        losses: dict[str, Tensor] = {}
        handles = []
        for name, term in self.module.named_terms():

            def note(_: nn.Module, __: Any, result: Result, name: str = name) -> None:
                losses[name] = result.loss

            handles.append(term.register_forward_hook(note))
        try:
            total = self.module.training_step(batch, 0)
        finally:
            for handle in handles:
                handle.remove()
        weights = [term.weight for term in self.module.stage.terms]
        return Pass(total, losses, dict(zip(losses, weights, strict=True)))

    def frozen(self) -> dict[str, nn.Parameter]:
        module = self.module
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        frozen = {names.get(id(parameter), f"text.{number}"): parameter for number, parameter in enumerate(module.held)}
        for name, term in module.named_terms():
            frozen |= {f"{name}.{own}": value for own, value in term.momentum_parameters().items()}
        return frozen

    def of_photos(self, job: Job) -> Iterator[Question]:
        stage, photos = self.module.stage, self.module.photos
        yield partial(data_checks.preprocessing, job.recipe, stage, job.embedder, job.material, photos.photos)
        wanting = [f"{n}_{term.kind}" for n, term in enumerate(stage.terms) if term.reads_identities]
        yield lambda: initial_state.pairs(wanting, photos.photos.labels, self.drawn())
        if stage.compares_views:
            yield self._views_differ
        if any(term.held_places() is not None for _, term in self.module.named_terms()):
            yield lambda: self._queue(job)

    def of_learning(self, result: Pass, *, fresh: bool) -> Iterator[Question]:
        if any(term.momentum_parameters() for _, term in self.module.named_terms()):
            yield lambda: self._key_encoder(result)

    def _views_differ(self) -> CheckResult:
        """Both views of the first batch's photos differ, and are drawn anew for each photo."""
        batch = self.batch(next(self.drawn())[:8])
        pairs = batch.photos.flatten(2)
        same = int((pairs[:, 0] == pairs[:, 1]).all(dim=1).sum())
        differing = float((pairs[:, 0] != pairs[:, 1]).float().mean())
        wrong = [f"both views of {same} of {len(pairs)} photos are the same, byte for byte"] if same else []
        summary = f"two views of {len(pairs)} photos differ in {differing:.0%} of their bytes"
        return verdict("views", wrong, summary, "a photo is found trivially then: strengthen `augment` of the stage")

    def _queue(self, job: Job) -> CheckResult:
        """Keys are of training photos only: none is evaluated, and none is validated on."""
        split, wrong = job.material.split, []
        rows = split.train[self.module.photos.photos.rows.numpy()]
        apart = np.setdiff1d(split.validation_rows, split.train)
        if split.test:
            tested = np.intersect1d(rows, np.concatenate([draw.query for draw in split.test]))
            tested = np.union1d(tested, np.intersect1d(rows, evaluated_rows(split)))
            if len(tested):
                wrong.append(f"{len(tested)} photos that may enter the queue are tested on (such as row {tested[0]})")
        if len(np.intersect1d(rows, apart)):
            wrong.append(f"{len(np.intersect1d(rows, apart))} photos that may enter the queue are validated on")
        for name, term in self.module.named_terms():
            places = term.held_places()
            if places is not None and bool((places >= 0).any()):
                wrong.append(f"the queue of {name} is not empty before the first step")
        return verdict("queue", wrong, f"{len(rows)} training photos may enter the queue, none is tested on")

    def _key_encoder(self, result: Pass) -> CheckResult:
        """The key encoder is a copy of the trained one, and no gradient reaches it."""
        wrong, count = [], 0
        for name, term in self.module.named_terms():
            parameters = term.momentum_parameters()
            count += len(parameters)
            learning = [own for own, value in parameters.items() if value.requires_grad]
            if learning:
                wrong.append(f"{len(learning)} parameters of {name}'s key encoder take a gradient ({learning[0]})")
                values = [parameters[own] for own in learning]
                gradients = torch.autograd.grad(result.total, values, retain_graph=True, allow_unused=True)
                reached = sum(gradient is not None and bool(gradient.any()) for gradient in gradients)
                wrong += [f"the loss's gradient reaches {reached} of them"] if reached else []
            trained = dict(self.module.embedder.backbone.named_parameters())
            unlike = [
                own
                for own, value in parameters.items()
                if own.startswith("key_backbone.")
                and not torch.equal(value, trained[own.removeprefix("key_backbone.")])
            ]
            if unlike:
                wrong.append(f"{len(unlike)} parameters of {name}'s key encoder differ from the trained tower's")
        summary = f"{count} parameters of the key encoder take no gradient and begin as those of the trained tower"
        return verdict("key_encoder", wrong, summary, "the key encoder follows the trained one by its momentum only")
