"""The interface of a stage's keys for the rest of the code.

A kind overrides what differs for it, so that code outside of a kind's own files never needs to know the kind.
"""

from typing import TYPE_CHECKING, Any, Literal

from handreid.recipe.base import Value


class StageValue(Value):
    """The keys of a stage. Every kind has those below as fields of its own, in the order of its documentation."""

    if TYPE_CHECKING:
        kind: str
        epochs: int
        clip_gradients: float | None
        precision: Literal["auto", "fp32", "bf16", "fp16"]
        validate_every: int

    @property
    def batches_per_step(self) -> int:
        """Batches whose gradients make one step of the optimizer."""
        return 1

    @property
    def trains_encoder(self) -> bool:
        """Whether the stage changes weights of the image encoder, or of the model's additions to it."""
        return False

    @property
    def validated_weights(self) -> Literal["best", "last"] | None:
        """The final weights of the stage: those of the epoch with the best validation mAP, or of the last epoch.

        None if the stage does not measure identification: then no sweep can choose by it.
        """
        return None

    @property
    def learns_texts(self) -> bool:
        """Whether the stage produces a text feature for every training identity."""
        return False

    @property
    def reads_texts(self) -> tuple[str, ...]:
        """Names of the keys that need the identities' text features from an earlier stage."""
        return ()

    @property
    def reads_identities(self) -> bool:
        """Whether the stage reads the training photos' identities."""
        return True

    @property
    def gives_towers(self) -> bool:
        """Whether the run writes both towers into a file of their own, for other recipes to start from."""
        return False

    @property
    def feature_terms(self) -> tuple[Any, ...]:
        """Terms of the loss that read the embedder's features by name."""
        return ()

    @property
    def augmentations(self) -> tuple[Any, ...]:
        """Augmentations of a training photo."""
        return ()
