"""The photos, the protocol, and what an identity is."""

from pathlib import Path
from typing import Literal

from handreid.recipe.base import Seed, Share, Value


class Data(Value):
    """The photos, the split into training, validation and test, and what counts as one identity."""

    manifest: Path | None = None
    """The photos; usually given as `--data`."""
    protocol: Literal["auto", "hands11k", "hd", "disjoint", "prepared"] = "auto"
    """Which subjects are for training and which for the test, see [data.md](data.md#protocols). `auto`: the data set's
    own protocol, else the manifest's split, else `disjoint`."""
    view: Literal["all", "dorsal-right", "dorsal-left", "palmar-right", "palmar-left"] = "all"
    """Training photos and queries are of this view only; the gallery keeps all views."""
    label: Literal["auto", "subject", "hand", "view"] = "auto"
    """What an identity is: a person, a person's left or right hand, or one view of it. `auto`: the finest of these that
    the manifest states for every photo."""
    cameras: Literal["ignore", "cross"] = "ignore"
    """`cross` ignores gallery photos of the query's own identity and camera in its ranking, as Market-1501 does."""
    validation: Literal["held-out", "closed-set"] = "held-out"
    """Validation on held-out training subjects, or on one photo of each training identity (as in the papers)."""
    validation_share: Share = 0.2
    """Share of the training subjects held out for validation."""
    test_share: Share = 0.5
    """Share of the subjects that are tested; protocol `disjoint` only."""
    seed: Seed = 0
    """Random seed of the split, the draws, and the validation subjects."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where decoded photos are cached; `auto` is memory up to 2 GiB, beyond that disk."""
