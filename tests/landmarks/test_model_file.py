"""Where the model comes from; nothing is downloaded here."""

import hashlib
import io
import sys
import urllib.error
import zipfile
from pathlib import Path

import pytest

from handreid.errors import WeightsError
from handreid.landmarks import mediapipe, model_file
from handreid.landmarks.model_file import landmarker_file


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HANDREID_LANDMARKER", raising=False)
    monkeypatch.setenv("HANDREID_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answers(monkeypatch: pytest.MonkeyPatch, *contents: bytes | Exception) -> list[str]:
    """Requests are answered in turn; gives the addresses that were asked."""
    left, asked = list(contents), []

    def urlopen(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        content = left.pop(0)
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def test_a_given_file_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given, named = tmp_path / "given.task", tmp_path / "named.task"
    given.touch()
    named.touch()
    monkeypatch.setenv("HANDREID_LANDMARKER", str(named))
    assert landmarker_file(given) == given
    assert landmarker_file() == named
    with pytest.raises(WeightsError, match=r"--landmarker is .*missing.task, and there is no such file"):
        landmarker_file(tmp_path / "missing.task")
    named.unlink()
    with pytest.raises(WeightsError, match=r"\$HANDREID_LANDMARKER is"):
        landmarker_file()


def test_it_is_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch):
    asked = answers(monkeypatch, b"the model")
    monkeypatch.setattr(model_file, "SHA256", hashlib.sha256(b"the model").hexdigest())
    path = landmarker_file()
    assert path.read_bytes() == b"the model"
    assert landmarker_file() == path
    assert asked == [model_file.ADDRESS]
    assert [entry.name for entry in cache.iterdir()] == [path.name]


def test_a_file_that_was_damaged_is_downloaded_again(monkeypatch: pytest.MonkeyPatch):
    answers(monkeypatch, b"the model", b"the model")
    monkeypatch.setattr(model_file, "SHA256", hashlib.sha256(b"the model").hexdigest())
    path = landmarker_file()
    path.write_bytes(b"not the model")
    assert landmarker_file().read_bytes() == b"the model"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>please log in</html>", "its SHA-256 is"),
        (
            urllib.error.URLError("Name or service not known"),
            "cannot be fetched from .* \\(Name or service not known\\)",
        ),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_what_is_not_the_model_is_not_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception, message: str
):
    answers(monkeypatch, answer)
    with pytest.raises(WeightsError, match=message) as error:
        landmarker_file()
    assert "--landmarker FILE" in str(error.value)
    assert not list(cache.rglob("*.task"))


@pytest.mark.parametrize("content", ["nothing", "text", "other archive"])
def test_another_file_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "model.task"
    if content == "text":
        path.write_text("no archive")
    if content == "other archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("face_detector.tflite", b"")
    with pytest.raises(WeightsError, match=r"is not MediaPipe's Hand Landmarker .*hand_detector.tflite"):
        mediapipe.check_model(path)


def test_without_litert_one_line_says_what_the_extra_brings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(WeightsError, match=r"pip install 'handreid\[landmarks\]'") as error:
        mediapipe.check_installed()
    assert "\n" not in str(error.value)
