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
    """P: largest number of identities in a batch (with P = 2 and an odd number of identities, one batch has 3); batches
    of an epoch differ by at most one."""
    images: int = Field(4, ge=2)
    """K: photos of each identity in a batch. An identity with fewer photos contributes all, and some of them again with
    other augmentation."""
    every: Literal["identity", "photo"] = "identity"
    """What an epoch contains once: every identity (with K of its photos), or every photo (an identity is repeated until
    all its photos were used)."""


class BalancedSampler(Value):
    """Groups of photos are drawn equally often: photos of small groups are repeated, some photos of large groups wait
    for later epochs.
    """

    kind: Literal["balanced"] = "balanced"
    by: tuple[str, ...] = Field(("aspect", "side"), min_length=1)
    """What defines a group: one or several columns of the manifest, such as aspect, side, subject, or skin
    (`skin_color` in 11k Hands)."""


class HardIdentitySampler(Value):
    """P x K, where a batch holds identities that are easily confused, by their centres in the epoch before."""

    kind: Literal["hard_identity"] = "hard_identity"
    identities: int = Field(16, ge=2)
    """P: largest number of identities in a batch."""
    images: int = Field(4, ge=2)
    """K: photos of each identity in a batch."""
    neighbours: int = Field(3, ge=1)
    """Number of nearest identities that are added to the batch with each identity that was drawn."""


AnySampler = Annotated[RandomSampler | PkSampler | BalancedSampler | HardIdentitySampler, Field(discriminator="kind")]
