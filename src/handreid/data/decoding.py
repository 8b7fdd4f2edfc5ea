"""Decodes a photo's file as a viewer shows it: upright, in sRGB, on white. No other module opens photos.

* Only the formats and modes (`pixels.py`) listed are read, so that no other program is started and nothing is guessed.
  Of several pictures in a file the first is read.
* Every failure is a PhotoError with the file's name.
* A photo of more than $HANDREID_MAX_PIXELS is refused by its header. Photos with more than `LARGE` pixels to decode are
  decoded one at a time, whatever the number of threads, and converted in strips, so that there is no second copy in
  memory: four bytes per pixel.
"""

import contextlib
import functools
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from handreid.data.orientation import SIDEWAYS, turn_of
from handreid.data.pixels import Look, clear_value, look_of
from handreid.errors import DataError, PhotoError

DECODER = 2  # raised when the same file becomes other pixels
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")  # MPO is a JPEG with more behind it
LIMIT = 200_000_000  # pixels of a photo, unless $HANDREID_MAX_PIXELS is set
LARGE = 25_000_000
ADVICE = "run `handreid data check` on the manifest"
AtLeast = tuple[int, int] | Callable[[tuple[int, int]], tuple[int, int]]

_STRIP = 4_000_000  # pixels
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_one_large = threading.RLock()


def open_upright(path: Path, at_least: tuple[int, int], *, advice: str = ADVICE) -> Image.Image:
    """One photo, upright and RGB. A JPEG is decoded at the smallest of its scales that is not below `at_least` (width,
    height); a photo that is still large is divided by a whole number, as far as `at_least` allows. Others keep their
    size.

    Raises PhotoError, which ends with `advice`.
    """
    with opened(path, at_least, advice=advice) as photo:
        return photo.reduced(at_least)


@contextlib.contextmanager
def opened(path: Path, at_least: AtLeast | None = None, *, advice: str = ADVICE) -> Iterator["Photo"]:
    """A decoded photo, as long as the context lasts; without `at_least` at its full size. Raises PhotoError.

    A function `at_least` is called with width and height in the file, which is not turned upright yet.
    """
    with _settings, contextlib.ExitStack() as held:
        with naming(path, advice):
            image = _image(held.enter_context(_file(path)))
            _check_size(image.size)
            jpeg = image.format in ("JPEG", "MPO")
            stored = image.size if jpeg else None
            if at_least and jpeg:  # a HEIC's draft is another picture: its thumbnail
                image.draft("RGB", at_least(image.size) if callable(at_least) else at_least)
            if image.width * image.height > LARGE:
                held.enter_context(_one_large)
            clear = clear_value(image)
            image.load()
            if clear is not None:
                image.info["transparency"] = clear
            photo = Photo(path, advice, image, look_of(image), turn_of(image), stored or image.size)
        yield photo


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that is decoded, but not converted or turned yet."""

    path: Path
    advice: str
    image: Image.Image
    look: Look
    turn: Image.Transpose | None
    stored: tuple[int, int]  # width and height in the file; those of `image` are smaller where it was decoded smaller

    @property
    def full_size(self) -> tuple[int, int]:
        """Width and height of the upright photo at its full size."""
        width, height = self.stored
        return (height, width) if self.turn in SIDEWAYS else (width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return (height, width) if self.turn in SIDEWAYS else (width, height)

    def strips(self) -> Iterator[Image.Image]:
        """Upright and RGB, from top to bottom, each as wide as the photo. Raises PhotoError."""
        width, height = self.size
        rows = max(1, _STRIP // width)
        for top in range(0, height, rows):
            with naming(self.path, self.advice):
                whole = rows >= height
                stored = self.image if whole else self.image.crop(self._stored(top, min(height, top + rows)))
                strip = self.look.rgb(stored)
                strip = strip if self.turn is None else strip.transpose(self.turn)
            yield strip

    def reduced(self, at_least: tuple[int, int]) -> Image.Image:
        """The whole photo, upright and RGB; a large one divided by the largest whole number that leaves it at
        `at_least`. Raises PhotoError.
        """
        with naming(self.path, self.advice):
            small = self.image.width * self.image.height <= LARGE
            photo = self.look.rgb(self.image) if small else self._by_strips(at_least)
            return photo if self.turn is None else photo.transpose(self.turn)

    def _by_strips(self, at_least: tuple[int, int]) -> Image.Image:
        width, height = self.image.size
        factor = max(1, min(width // max(1, at_least[0]), height // max(1, at_least[1])))
        whole = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
        rows = factor * max(1, _STRIP // (width * factor))
        for top in range(0, height, rows):
            strip = self.look.rgb(self.image.crop((0, top, width, min(height, top + rows))))
            whole.paste(strip.reduce(factor), (0, top // factor))
        return whole

    def _stored(self, top: int, bottom: int) -> tuple[int, int, int, int]:
        """Where rows of the upright photo lie in the image as it is stored."""
        width, height = self.image.size
        match self.turn:
            case None | Image.Transpose.FLIP_LEFT_RIGHT:
                return 0, top, width, bottom
            case Image.Transpose.ROTATE_180 | Image.Transpose.FLIP_TOP_BOTTOM:
                return 0, height - bottom, width, height - top
            case Image.Transpose.TRANSPOSE | Image.Transpose.ROTATE_270:
                return top, 0, bottom, height
            case _:
                return width - bottom, 0, width - top, height


class UnreadableError(PhotoError):
    """A file that cannot be decoded as a photo; `reason` says why, without the file's name."""

    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(f"{path} cannot be read as an image ({reason}); {advice}")
        self.reason = reason


@contextlib.contextmanager
def naming(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """Turns any exception into a PhotoError that names the file: Pillow raises many types for damaged files."""
    try:
        yield
    except DataError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise PhotoError(f"{path} is missing; {advice}") from None
    except Exception as error:
        raise UnreadableError(path, _reason(error, path), advice) from None


def _reason(error: Exception, path: Path) -> str:
    match error:
        case UnidentifiedImageError():
            return f"it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, or its header is damaged"
        case Image.DecompressionBombError():
            return f"it has more pixels than the limit of {_limit():,}; set HANDREID_MAX_PIXELS to raise it"
        case MemoryError():
            return "there is not enough memory for its pixels"
        case OSError() if error.strerror:
            return error.strerror
        case OSError() | ValueError() | SyntaxError() if str(error):
            return str(error).replace(str(path), "the file")
        case _:
            return f"{type(error).__name__} {error}".strip()


def _limit() -> int:
    stated = os.environ.get("HANDREID_MAX_PIXELS", "").strip() or str(LIMIT)
    if (
        not re.fullmatch(r"[0-9_]{1,18}", stated, re.ASCII)
        or not (digits := stated.replace("_", ""))
        or int(digits) < 1
    ):
        raise DataError(
            f"HANDREID_MAX_PIXELS is {stated[:40]!r}; set it to the pixel count of the largest photo, e.g. {LIMIT}"
        )
    return int(digits)


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > _limit():
        many = f"{size[0]:,} x {size[1]:,} pixels are more than the limit of {_limit():,}"
        raise ValueError(f"{many}; set HANDREID_MAX_PIXELS to raise it")


@contextlib.contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    """Opens regular files only: reading a pipe or a device may block for ever. Raises OSError, ValueError."""
    check_regular(path)
    with path.open("rb") as file:
        yield file


def check_regular(path: Path) -> None:
    """Raises OSError if the path does not exist, ValueError if it is no regular file."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(mode) else "it is a pipe or a device, not a file")


def _image(file: IO[bytes]) -> ImageFile.ImageFile:
    start = file.read(16)
    if not start:
        raise ValueError("the file is empty")
    heic = start[4:8] == b"ftyp" and start[8:12] in _HEIC
    can_read_heic = heic and _register_heic()
    try:
        return Image.open(file, formats=_formats(can_read_heic))
    except UnidentifiedImageError:
        if heic and not can_read_heic:
            raise ValueError("it is a HEIC photo; `pip install 'handreid[heic]'` to read it") from None
        raise


@functools.cache
def _formats(heic: bool) -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN and (heic or name != "HEIF"))


@functools.cache
def _register_heic() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


class _Settings:
    """Pillow's settings are global to the process: ours apply while any thread decodes, then the caller's are restored.

    With ours a truncated photo is an error, our limit of pixels applies, and warnings, which name no file, are ignored.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._back = contextlib.ExitStack()

    def __enter__(self) -> None:
        limit = _limit()
        with self._lock:
            if not self._users:
                self._back.enter_context(_as_needed(limit))
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._back.close()


@contextlib.contextmanager
def _as_needed(limit: int) -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, limit
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


_settings = _Settings()
