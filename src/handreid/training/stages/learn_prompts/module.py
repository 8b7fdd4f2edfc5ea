"""Lightning module of the `learn_prompts` stage (CLIP-ReID's first): contexts learn, both towers are frozen.

* The photos' features are computed once, before the stage: an epoch only computes texts.
* The text of an identity is computed once per batch, however many of its photos are in it; the losses weight it by
  their number.
* The text tower is stored in a tuple, where Lightning does not find it: it is in no optimizer and no checkpoint.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from handreid.data.sampling import Drawn, RandomBatches
from handreid.models.prompts import LearnedPrompts, PromptLearner, diversity
from handreid.models.text import TextEncoder
from handreid.objectives.contrast import contrast, similarities
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.recipe import LearnPrompts
from handreid.training.optimizers import Group, Part, parameter_groups
from handreid.training.stage_module import StageModule


class LearnPromptsModule(StageModule):
    """Trains `learner` on the fixed joint `features` of photos with these `labels` (0 to identities - 1).

    `names` of the identities and their `sentences`, for each prompt, are only stored with the result.
    """

    def __init__(
        self,
        learner: PromptLearner,
        text: TextEncoder,
        stage: LearnPrompts,
        features: Float[Tensor, "photos joint"],
        labels: Int[Tensor, " photos"],
        *,
        names: Sequence[str],
        sentences: Sequence[Sequence[str]],
        seed: int,
    ) -> None:
        super().__init__(stage, stage.optimizer, seed=seed)
        self.learner = learner
        self.stage = stage
        self.features: Tensor
        self.labels: Tensor
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("labels", labels, persistent=False)
        self._outside = (text.eval().requires_grad_(False), tuple(names), tuple(map(tuple, sentences)))

    @property
    def text(self) -> TextEncoder:
        return self._outside[0]

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the terms in the loss."""
        stage = self.stage
        of_both = {"image_to_text": stage.image_to_text, "text_to_image": stage.text_to_image}
        return of_both | {"diversity": stage.diversity}

    @property
    def result(self) -> LearnedPrompts:
        """The learned prompts, with every identity's text in the order of the names."""
        _, names, sentences = self._outside
        contexts = {name: value.detach().clone() for name, value in self.learner.contexts.items()}
        return LearnedPrompts(names, self.learner.texts(self.text), contexts, sentences)

    def groups(self) -> list[Group]:
        parts = [Part("contexts", list(self.learner.parameters()), self.stage.optimizer.lr)]
        return parameter_groups(parts, weight_decay=self.stage.optimizer.weight_decay)

    @cached_property
    def batches_per_epoch(self) -> int:
        return len(self._batches(0))

    @property
    def photos_per_epoch(self) -> int:
        return len(self.labels)

    def on_fit_start(self) -> None:
        self.text.to(self.device)

    def train_dataloader(self) -> DataLoader[Tensor]:
        positions = _Positions()
        return DataLoader(positions, sampler=self._batches(self.current_epoch), batch_size=None, num_workers=0)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        self.seed_step(index)
        losses = self.losses(batch)
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        self._note(loss=total, **losses)
        return total

    def losses(self, batch: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """The unweighted terms for these photos.

        Li, Sun, Li, "CLIP-ReID" (2023), equations 3 and 4, as their means over the batch. An identity with n photos in
        the batch is an anchor n times, and n times in the other sum.
        """
        which, place, counts = torch.unique(self.labels[batch], return_inverse=True, return_counts=True)
        texts = self.learner(self.text, which)
        with without_autocast(texts):
            texts, times = at_least_fp32(texts), counts.float()
            logits = self.similarities(self.features[batch], self.learner.mean(texts))
            same = place[:, None] == torch.arange(len(which), device=place.device)
            terms = {
                "image_to_text": contrast(logits, same, times).mean(),
                "text_to_image": (contrast(logits.T, same.T) * times).sum() / times.sum(),
            }
            return terms | ({"diversity": diversity(texts)} if self.stage.diversity else {})

    @torch.no_grad()
    def sanity(self, prompts: LearnedPrompts) -> dict[str, float]:
        """Share of the training photos whose nearest text is that of their identity."""
        nearest = self.similarities(self.features, prompts.texts.to(self.features.device)).argmax(dim=1)
        return {"rank1": (nearest == self.labels).float().mean().item()}

    def similarities(self, photos: Tensor, texts: Tensor) -> Tensor:
        return similarities(photos, texts, normalise=self.stage.normalise, temperature=self.stage.temperature)

    def _batches(self, epoch: int) -> RandomBatches:
        return RandomBatches(len(self.labels), self.stage.batch_size, seed=self.seed, epoch=epoch)


class _Positions(Dataset[Tensor]):
    """Returns the positions of a batch; the features and labels at these are in the module."""

    def __getitem__(self, drawn: list[Drawn]) -> Tensor:
        return torch.tensor([position for position, _ in drawn])
