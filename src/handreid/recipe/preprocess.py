"""From photo to the tower's input."""

from typing import Literal

from pydantic import Field

from handreid.recipe.base import Value


class Preprocess(Value):
    """How a photo becomes the tower's input. Stored with the model, so that training and test cannot differ."""

    normalise: Literal["clip", "imagenet", "half"] = "clip"
    """Mean and standard deviation of the channels: CLIP's, ImageNet's, or 0.5 and 0.5."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """What to do with a photo whose shape is not the input's; `crop` takes the centre, `pad` adds white."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Interpolation for resizing; aligned photos are read bilinearly."""
    align: Literal["none", "auto", "upright", "hand"] = "none"
    """`hand` brings wrist and knuckles to fixed places in a square; `upright` turns and centres the hand in a square of
    the photo's longer side, keeping its size. The square is then resized as a photo is. Both need
    [landmarks](landmarks.md). `auto` is `hand` if the manifest to train on has landmarks, else `none`."""
    fill: Literal["blank", "mean", "border", "reflected", "replicated"] = "border"
    """What an aligned picture shows outside the photo: white, the photo's mean colour, the median colour of its
    edge, or its pixels, mirrored at the edge or repeated from it."""
    margin: float = Field(0.0, ge=0, le=0.4)
    """Share of an aligned picture's side that is left free on each side of it."""
    without_hand: Literal["refuse", "as_is"] = "refuse"
    """What to do, if photos are aligned, with one in which no hand was found: an error, or the photo as it is."""
    chirality: Literal["as_is", "canonical"] = "as_is"
    """`canonical` mirrors photos of left hands, so that every photo shows a right hand: a person's two hands can be
    compared. The side is the manifest's, else the one that the [landmarker](landmarks.md#chirality) predicted."""
    unknown_side: Literal["refuse", "as_is"] = "refuse"
    """What to do, if left hands are mirrored, with a photo whose side is not known: an error, or the photo as it is."""

    @property
    def aligns(self) -> bool:
        return self.align != "none"

    @property
    def mirrors(self) -> bool:
        return self.chirality == "canonical"
