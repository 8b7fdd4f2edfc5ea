"""The photos, the protocol, and what an identity is."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from handreid.recipe.base import Seed, Share, Value
from handreid.recipe.rendered import Rendered


class Data(Value):
    """The photos, the split into training, validation and test, and what counts as one identity."""

    manifest: Path | None = None
    """The photos; usually given as `--data`."""
    rendered: Rendered | None = None
    """Photos that are [rendered](data.md#photos-that-a-recipe-renders) into the cache before training, unless they are
    there; in the place of a manifest. `--data` takes precedence."""
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

    @model_validator(mode="after")
    def _photos_are_of_one_place(self) -> "Data":
        if self.manifest is not None and self.rendered is not None:
            raise ValueError(
                "manifest and rendered both say which photos to use: remove one of them, or give the manifest as "
                "--data, which takes the place of rendered photos"
            )
        return self
