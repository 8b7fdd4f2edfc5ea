"""The photos, the protocol, and what an identity is."""

from pathlib import Path
from typing import Literal

from handreid.recipe.base import Seed, Share, Value


class Data(Value):
    """Which photos, who trains, validates and tests, and what counts as one identity."""

    manifest: Path | None = None
    """The photos; usually given as `--data`."""
    protocol: Literal["auto", "hands11k", "hd", "disjoint", "prepared"] = "auto"
    """Who trains and who is tested, see [data.md](data.md#protocols). `auto`: the data set's own, else the split that
    the manifest gives, else `disjoint`."""
    view: Literal["all", "dorsal-right", "dorsal-left", "palmar-right", "palmar-left"] = "all"
    """Train and search with photos of this view; the gallery keeps all views."""
    label: Literal["auto", "subject", "hand", "view"] = "auto"
    """What an identity is: a person, a person's left or right hand, or one view of it. `auto`: the finest of these that
    the manifest knows of every photo."""
    cameras: Literal["ignore", "cross"] = "ignore"
    """`cross` leaves gallery photos of the query's own identity and camera out of its ranking, as Market-1501 does."""
    validation: Literal["held-out", "closed-set"] = "held-out"
    """What selects the model: held-out training subjects, or one photo of each training identity (the papers')."""
    validation_share: Share = 0.2
    """Share of the training subjects held out for validation."""
    test_share: Share = 0.5
    """Share of the subjects tested; protocol `disjoint` only."""
    seed: Seed = 0
    """Decides the split, the draws, and the validation subjects."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where decoded photos are kept; `auto` is memory up to 2 GiB, then disk."""
