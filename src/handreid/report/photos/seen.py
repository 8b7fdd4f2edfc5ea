"""Photos as the model sees them, small, to be shown below the file's photos where the two differ."""

from collections.abc import Sequence

from PIL import Image

from handreid.progress import NullProgress, Progress
from handreid.report.photos.model_input import model_input_image
from handreid.report.photos.test_photos import TestPhotos
from handreid.report.photos.thumbnails import in_square
from handreid.types import Preprocessing


def seen_words(preprocessing: Preprocessing) -> str:
    """What the model does to photos beyond resizing them."""
    done = [f"hands aligned ({preprocessing.alignment.kind})"] if preprocessing.alignment else []
    done += ["left hands mirrored"] if preprocessing.mirrors else []
    return f"below each photo what the model sees: {' and '.join(done)}"


def seen_thumbnails(
    tested: TestPhotos, photos: Sequence[int], side: int, *, progress: Progress | None = None
) -> list[Image.Image]:
    """A square of `side` pixels per test photo, by position; none for a model that neither aligns nor mirrors.

    Raises PhotoError for a photo that cannot be read.
    """
    preprocessing = tested.changes_photos
    if preprocessing is None:
        return []
    images = []
    with (progress or NullProgress()).step("reading photos as the model does", len(photos), "photos") as advance:
        for photo in photos:
            images.append(in_square(model_input_image(tested.files[photo], preprocessing, pixels=side), side))
            advance(1)
    return images
