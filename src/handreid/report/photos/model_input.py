"""A photo as the model sees it at a higher resolution, for saliency maps drawn over it."""

from PIL import Image

from handreid.data.loading import decode
from handreid.data.photo_file import PhotoFile
from handreid.types import Preprocessing

PIXELS = 448  # of the longer side of a photo in a figure


def model_input_image(photo: PhotoFile, preprocessing: Preprocessing, *, pixels: int = PIXELS) -> Image.Image:
    """A photo as the model sees it, with a longer side of about `pixels` pixels. Raises PhotoError."""
    factor = max(pixels / max(preprocessing.size), 1.0)
    return Image.fromarray(decode(photo, preprocessing, factor).transpose(1, 2, 0))
