"""Samplers: the photos of a batch."""

from typing import Annotated, Literal

from pydantic import Field

from handreid.recipe.base import Value


class RandomSampler(Value):
    """Every photo once an epoch, in any order."""

    kind: Literal["random"] = "random"


class PkSampler(Value):
    """P identities by K photos of each (Hermans et al. 2017)."""

    kind: Literal["pk"] = "pk"
    identities: int = Field(16, ge=2)
    """P: most identities in a batch (if 2, an odd one out makes 3); batches of an epoch differ by one at most."""
    images: int = Field(4, ge=2)
    """K: photos of each identity in a batch. One that has fewer gives all it has, and some of them again, each time
    augmented anew."""
    every: Literal["identity", "photo"] = "identity"
    """What an epoch sees once: every identity (with K of its photos), or every photo (an identity comes back until
    all its photos have been seen)."""


class BalancedSampler(Value):
    """Groups of photos come equally often: small ones with repeats, large ones leave photos to later epochs."""

    kind: Literal["balanced"] = "balanced"
    by: tuple[str, ...] = Field(("aspect", "side"), min_length=1)
    """What tells groups apart: one or several columns of the manifest, such as aspect, side, subject, or skin (which is
    `skin_color` in 11k Hands)."""


class HardIdentitySampler(Value):
    """P x K, where a batch holds identities that confuse each other, by their centres in the epoch before."""

    kind: Literal["hard_identity"] = "hard_identity"
    identities: int = Field(16, ge=2)
    """P: most identities in a batch."""
    images: int = Field(4, ge=2)
    """K: photos of each identity in a batch."""
    neighbours: int = Field(3, ge=1)
    """How many of its nearest identities come into the batch with an identity that was drawn."""


AnySampler = Annotated[RandomSampler | PkSampler | BalancedSampler | HardIdentitySampler, Field(discriminator="kind")]
