"""What the rest of the code asks of every stage's keys, whatever its kind.

A kind overrides what is different for it; so nothing outside of a kind's own files asks which kind a stage is.
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
        """Whether the image encoder, or what the model adds to it, has other weights after the stage."""
        return False

    @property
    def validated_weights(self) -> Literal["best", "last"] | None:
        """Which weights the stage ends with: of the epoch with the best validation mAP, or of the last epoch.

        None where the stage does not measure identification: then no sweep can choose by it.
        """
        return None

    @property
    def learns_texts(self) -> bool:
        """Whether the stage leaves a text feature for every training identity."""
        return False

    @property
    def reads_texts(self) -> tuple[str, ...]:
        """Names of the keys that need a text feature of every identity, of a stage before."""
        return ()

    @property
    def terms(self) -> tuple[Any, ...]:
        """Terms of the loss that read the embedder's features by name."""
        return ()

    @property
    def augmentations(self) -> tuple[Any, ...]:
        """What is done to a training photo."""
        return ()
