"""The file of MediaPipe's Hand Landmarker: given, named by $HANDREID_LANDMARKER, or downloaded once."""

import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path

from handreid.errors import OutputError, WeightsError
from handreid.files import cache_folder, file_hash, found_file, write_atomic

VARIABLE = "HANDREID_LANDMARKER"
# As in MediaPipe's documentation of the Hand Landmarker, "HandLandmarker (full)", version 1: 7.8 MB, Apache-2.0.
ADDRESS = (
    "https://storage.googleapis.com/mediapipe-models/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task"
)
SHA256 = "fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1"
_ADVICE = f"give a downloaded file: --landmarker FILE, or ${VARIABLE}"
_SECONDS = 30  # without any answer
_LARGEST = 100_000_000  # bytes; whatever answers, it does not fill the disk


def landmarker_file(given: Path | None = None) -> Path:
    """The model's file: `given`, else that of $HANDREID_LANDMARKER, else the downloaded one in the cache folder.

    What is downloaded has the SHA-256 that is written here, or is refused. Raises WeightsError.
    """
    if given is not None:
        return _existing(given, "--landmarker")
    named = os.environ.get(VARIABLE)
    if named:
        return _existing(Path(named), f"${VARIABLE}")
    path = cache_folder() / f"hand_landmarker-{SHA256[:16]}.task"
    if path.is_file() and file_hash(path) == SHA256:
        return path
    content = _download()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent} cannot be made ({error.strerror}); {_ADVICE}") from None
    write_atomic(path, lambda part: part.write_bytes(content), durable=True)
    return path


def _existing(path: Path, source: str) -> Path:
    found = found_file(path)
    if found is None:
        raise WeightsError(f"{source} is {path}, and there is no such file; give MediaPipe's hand_landmarker.task")
    return found


def _download() -> bytes:
    try:
        with urllib.request.urlopen(ADDRESS, timeout=_SECONDS) as answer:
            content: bytes = answer.read(_LARGEST)
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"the hand landmarker's model is not on this machine and cannot be fetched from {ADDRESS} "
            f"({getattr(error, 'reason', None) or error}); {_ADVICE}"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise WeightsError(
            f"what {ADDRESS} sent is not the hand landmarker's model: its SHA-256 is {digest[:16]}..., not "
            f"{SHA256[:16]}...; {_ADVICE}"
        )
    return content
