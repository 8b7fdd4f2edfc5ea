"""MediaPipe's Hand Landmarker: its two models, run by LiteRT, with decoding of our own.

* LiteRT is a tenth of the package `mediapipe` and starts six times as fast; the numbers are in docs/landmarks.md.
* Unlike MediaPipe, the second model looks twice: first at the square that the palm suggests, then at the one that the
  points suggest. MediaPipe does so from one frame of a video to the next. Points of a turned photo then agree with
  those of the upright one more than twice as well.
* The border outside the picture has its mean colour. A photo whose edge cuts the palm is given room (`_MARGINS`), and
  if no hand is found, it is turned by quarters.
"""

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from handreid.errors import WeightsError
from handreid.files import file_hash
from handreid.landmarks import palm_detection
from handreid.landmarks.hand import HandLandmarks, Picture
from handreid.landmarks.region import Square, around_picture, around_points
from handreid.landmarks.warp import Colour, mean_colour, warp

VERSION = 1  # raised when the same model and photo give other points
EXTRA = (
    "finding hands needs LiteRT, which is not installed: `pip install 'handreid[landmarks]'` brings it (70 MB), for "
    "`handreid data landmarks`, `handreid figure landmarks`, and models that align or mirror photo files; landmarks "
    "from elsewhere (--points) need no extra"
)
_FILES = ("hand_detector.tflite", "hand_landmarks_detector.tflite")
_SHAPES = (((1, 2016, 18), (1, 2016, 1)), ((1, 63), (1, 1), (1, 1), (1, 63)))
_SIDE = 224  # pixels of the second model's input
_FOUND = 0.5  # score from which it is a hand, as in MediaPipe
_MARGINS = (0.19, 0.0, 0.6)  # shares of the longer side, tried in this order
_SAME = 0.4  # of a hand's size: two hands whose points are nearer on average are one, found twice


class HandLandmarker:
    """Finds hands on a picture. Create it once for each process: loading takes a tenth of a second.

    Raises WeightsError where LiteRT is not installed, and for a file that is not a Hand Landmarker.
    """

    def __init__(self, path: Path) -> None:
        detector, landmarks = _models(path)
        self._detector = _Model(detector, _SHAPES[0], path)
        self._landmarks = _Model(landmarks, _SHAPES[1], path)

    def __call__(self, picture: Picture, /) -> tuple[HandLandmarks, ...]:
        """The hands, the most certain first; the picture is tried turned, and with more border, until one is found."""
        image = Image.fromarray(picture)
        for margin in _MARGINS:
            for quarter_turns in range(4):
                hands = self._hands(image, around_picture(*image.size, margin, quarter_turns))
                if hands:
                    return hands
        return ()

    def _hands(self, image: Image.Image, seen: Square) -> tuple[HandLandmarks, ...]:
        side = palm_detection.SIDE
        raw, scores = self._detector(warp(image, seen.transform(side), (side, side), fill="replicated"))
        around = mean_colour(image)
        hands: list[HandLandmarks] = []
        for palm in palm_detection.decode(raw, scores[:, 0]):
            hand = self._hand(image, palm.hand(seen), around)
            hand = self._hand(image, around_points(hand.points), around)
            if hand.score >= _FOUND:
                hands.append(hand)
        return _distinct(hands)

    def _hand(self, image: Image.Image, square: Square, around: Colour) -> HandLandmarks:
        crop = warp(image, square.transform(_SIDE), (_SIDE, _SIDE), fill=around)
        points, score, right, _ = self._landmarks(crop)
        shares = points.astype(np.float64).reshape(21, 3)[:, :2] / _SIDE
        # The model says right or left for the photo as it is, whichever side of the hand shows: see docs/landmarks.md.
        sure = float(right[0])
        return HandLandmarks(
            square.points(shares), float(score[0]), "right" if sure >= 0.5 else "left", max(sure, 1 - sure)
        )


def _distinct(hands: list[HandLandmarks]) -> tuple[HandLandmarks, ...]:
    kept: list[HandLandmarks] = []
    for hand in sorted(hands, key=lambda hand: -hand.score):
        apart = [np.linalg.norm(hand.points - other.points, axis=1).mean() / max(other.size, 1.0) for other in kept]
        if all(distance > _SAME for distance in apart):
            kept.append(hand)
    return tuple(kept)


class _Model:
    """One TFLite model: a picture in, its outputs in the order of their names out."""

    def __init__(self, content: bytes, shapes: tuple[tuple[int, ...], ...], path: Path) -> None:
        try:
            with _quiet():
                self._interpreter = _interpreter_class()(model_content=content, num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _wrong(path, str(error).strip() or type(error).__name__) from None
        outputs = sorted(self._interpreter.get_output_details(), key=lambda output: str(output["name"]))
        found = tuple(tuple(int(side) for side in output["shape"]) for output in outputs)
        if found != shapes:
            raise _wrong(path, f"its outputs have the shapes {found}, not {shapes}")
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in outputs]

    def __call__(self, picture: Image.Image) -> list[Float32[np.ndarray, "..."]]:
        self._interpreter.set_tensor(self._input, np.asarray(picture, np.float32)[None] / np.float32(255))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def check_installed() -> None:
    """Raises WeightsError, with what the extra brings, where LiteRT is not installed."""
    _interpreter_class()


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise WeightsError(EXTRA) from None
    return Interpreter


def check_model(path: Path) -> str:
    """The SHA-256 of a Hand Landmarker's file. Raises WeightsError for any other file."""
    _models(path)
    return file_hash(path)


def _models(path: Path) -> tuple[bytes, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            detector, landmarks = (archive.read(name) for name in _FILES)
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise _wrong(path, str(error).strip("'\" ")) from None
    return detector, landmarks


def _wrong(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} is not MediaPipe's Hand Landmarker ({reason}); give its hand_landmarker.task, which holds "
        f"{' and '.join(_FILES)}"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT writes a line about its delegate to the process's standard error, which no setting of it turns off."""
    if sys.stderr is not None:
        sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - Path.open knows no more
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
