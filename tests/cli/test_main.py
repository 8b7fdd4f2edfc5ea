"""How the command ends: one message and an exit code, never a trace, whatever it is given."""

import contextlib
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from handreid import cli
from handreid.cli import ending
from handreid.errors import RecipeError
from tests.cli.test_commands import Called, complaint, handreid
from tests.conftest import MICRO_RECIPE

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\u2066\r\n\tend"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A folder with what people give in the place of something else; it is the working directory of the commands."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(photos, folder / "m.parquet")
    (folder / "m.csv").write_text("path,subject\na.jpg,anna\n")
    Image.new("RGB", (32, 32)).save(folder / "hand.jpg")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (folder / "latin.yaml").write_bytes("name: caf\u00e9\n".encode("latin-1"))
    (folder / "ok.yaml").write_text(MICRO_RECIPE)
    (folder / "long.yaml").write_text("about: " + "x" * 2_000_000)
    (folder / "folder.parquet").mkdir()
    (folder / "photos" / "anna").mkdir(parents=True)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "recipe.yaml").write_text(MICRO_RECIPE)
    (folder / "unfinished" / "run.json").write_text("{}")
    return folder


def recipe(change: str, *, name: str = "r.yaml") -> tuple[str, str]:
    return name, f"{MICRO_RECIPE}\n{change}\n"


# each a file of that name, and its text
RECIPES = {
    "a negative seed": recipe("seed: -1"),
    "a seed that is too large": recipe("seed: 4294967296"),
    "5,000 digits": recipe(f"seed: {'9' * 5000}"),
    "a thousand digits": recipe(f"seed: {'9' * 1000}"),
    "no number": recipe("data: {seed: .nan}"),
    "infinity": recipe("data: {test_share: .inf}"),
    "a power that is infinite": recipe("data: {test_share: 1e999}"),
    "a date": recipe("about: 2024-13-45"),
    "a date that is one": recipe("about: 2024-11-05"),
    "a null byte": recipe('about: "a\\0b"'),
    "a lone surrogate": recipe('evaluate: {prompts: {templates: ["\\ud800"]}}'),
    "lists in lists": recipe(f"about: {'[' * 3000}"),
    "lists in lists, closed": recipe(f"about: {'[' * 300}{']' * 300}"),
    "itself": recipe("about: &a [*a]"),
    "billions of values": recipe("about: [&a [x,x], &b [*a,*a,*a,*a], &c [*b,*b,*b,*b], [*c,*c,*c,*c]]"),
    "a tag of Python's": recipe("about: !!python/object/apply:os.system [ls]"),
    "a timestamp that is none": recipe("about: !!timestamp x"),
    "a set": recipe("about: !!set {a, b}"),
    "bytes": recipe("about: !!binary aGFuZA=="),
    "keys that are numbers": recipe("3: 4\nnull: 5\ntrue: 6\n[1, 2]: 7"),
    "a format string": recipe("evaluate: {prompts: {templates: ['{side.x} {aspect}']}}"),
    "a wide format string": recipe("evaluate: {prompts: {templates: ['{side:99999999999} {aspect}']}}"),
    "a list in the place of a mapping": recipe("data: [1, 2]"),
    "a hundred unknown keys": recipe("\n".join(f"key{number}: 1" for number in range(100))),
    "a long unknown key": recipe(f"{'k' * 900}: 1"),
    "a long value": recipe(f"data: {{protocol: {'p' * 5000}}}"),
    "a name that is no folder": ("r.yaml", MICRO_RECIPE.replace("name: micro", "name: ../../etc", 1)),
    "a name that is too long": ("r.yaml", MICRO_RECIPE.replace("name: micro", f"name: {'n' * 300}", 1)),
    "tabs": ("r.yaml", "name:\tx\n\t- y"),
    "nothing": ("r.yaml", ""),
    "a word": ("r.yaml", "hand"),
    "a list": ("r.yaml", "- a\n- b"),
    "an unknown kind": recipe("stages: [{kind: 3}]"),
    "a kind that is a list": recipe("stages: [{kind: [fine_tune]}]"),
    "a backbone that is a number": recipe("model: 3"),
}

HERE = ("--data", "m.parquet", "--out", "new")
LINES: dict[str, Sequence[str]] = {
    "a mistyped recipe": ("train", "nonsense", *HERE),
    "a recipe that is nearly right": ("train", "tiny-cross-entropi", *HERE),
    "a manifest as recipe": ("train", "m.parquet", *HERE),
    "a table as recipe": ("train", "m.csv", *HERE),
    "a photo as recipe": ("train", "hand.jpg", *HERE),
    "a model as recipe": ("train", "model.safetensors", *HERE),
    "a folder as recipe": ("train", "photos", *HERE),
    "a run as recipe": ("train", "unfinished", *HERE),
    "an empty name": ("train", "", *HERE),
    "a name of 5,000 letters": ("train", "r" * 5000, *HERE),
    "a name with a null byte": ("train", "r\0.yaml", *HERE),
    "a name that acts on a terminal": ("train", ESCAPES, *HERE),
    "not UTF-8": ("train", "latin.yaml", *HERE),
    "two megabytes": ("train", "long.yaml", *HERE),
    "no such recipe file": ("train", "none.yaml", *HERE),
    "nothing at all": ("train",),
    "no manifest": ("train", "ok.yaml", "--out", "new"),
    "no such manifest": ("train", "ok.yaml", "--data", "none.parquet", "--out", "new"),
    "a recipe as manifest": ("train", "ok.yaml", "--data", "ok.yaml", "--out", "new"),
    "a photo as manifest": ("train", "ok.yaml", "--data", "hand.jpg", "--out", "new"),
    "a folder as manifest": ("train", "ok.yaml", "--data", "photos", "--out", "new"),
    "a folder called parquet": ("train", "ok.yaml", "--data", "folder.parquet", "--out", "new"),
    "a manifest with a long name": ("train", "ok.yaml", "--data", "m" * 5000 + ".parquet", "--out", "new"),
    "--out at a file": ("train", "ok.yaml", "--data", "m.parquet", "--out", "m.csv"),
    "--out below a file": ("train", "ok.yaml", "--data", "m.parquet", "--out", "m.csv/run"),
    "--out that holds something": ("train", "ok.yaml", "--data", "m.parquet", "--out", "photos"),
    "--out with a long name": ("train", "ok.yaml", "--data", "m.parquet", "--out", "o" * 5000),
    "an unknown tracker": ("train", "ok.yaml", *HERE, "--track", "mlfow"),
    "a tracker with a long name": ("train", "ok.yaml", *HERE, "--track", "m" * 5000),
    "--resume of nothing": ("train", "--resume", "--out", "new"),
    "--resume of a file": ("train", "--resume", "--out", "m.csv"),
    "--set without a value": ("train", "ok.yaml", *HERE, "--set", "seed"),
    "--set of nothing": ("train", "ok.yaml", *HERE, "--set", ""),
    "--set of a negative seed": ("train", "ok.yaml", *HERE, "--set", "seed=-1"),
    "--set of odd YAML": ("train", "ok.yaml", *HERE, "--set", "seed={a: ["),
    "--set of 5,000 digits": ("train", "ok.yaml", *HERE, "--set", f"seed={'1' * 5000}"),
    "--set of no number": ("train", "ok.yaml", *HERE, "--set", "data.test_share=.nan"),
    "--set with a strange digit": ("train", "ok.yaml", *HERE, "--set", "stages.\u00b2.epochs=1"),
    "--set beyond a list": ("train", "ok.yaml", *HERE, "--set", f"stages.{'9' * 5000}.epochs=1"),
    "--set of a deep path": ("train", "ok.yaml", *HERE, "--set", ".".join("a" * 3000) + "=1"),
    "--set without a recipe": ("train", "--resume", "--out", "unfinished", "--set", "seed=1"),
    "--set of control characters": ("train", "ok.yaml", *HERE, "--set", f"about.{ESCAPES}=1"),
    "evaluate nothing": ("evaluate", "none"),
    "evaluate a folder": ("evaluate", "photos"),
    "evaluate a file": ("evaluate", "m.csv"),
    "evaluate what is unfinished": ("evaluate", "unfinished"),
    "evaluate with odd re-ranking": ("evaluate", "unfinished", "--rerank", "k1=\u00b2"),
    "evaluate with long re-ranking": ("evaluate", "unfinished", "--rerank", f"k1={'1' * 5000}"),
    "evaluate a long name": ("evaluate", "r" * 5000),
    "a matrix of nothing": ("evaluate", "none", "--matrix", "view"),
    "a rung that is none": ("ladder", "--data", "m.parquet", "--out", "new", "--rungs", "nonsense,zero-shot"),
    "an empty rung": ("ladder", "--data", "m.parquet", "--out", "new", "--rungs", ","),
    "a rung twice": ("ladder", "--data", "m.parquet", "--out", "new", "--rungs", "ok.yaml,ok.yaml"),
    "a ladder without photos": ("ladder", "--out", "new"),
    "a ladder at a file": ("ladder", "--data", "m.parquet", "--out", "m.csv"),
    "a backbone that is a photo": ("ladder", "--data", "m.parquet", "--out", "new", "--backbone", "latin.yaml"),
    "a sweep that is none": ("sweep", "nonsense", "--data", "m.parquet", "--out", "new"),
    "a sweep that is a recipe": ("sweep", "ok.yaml", "--data", "m.parquet", "--out", "new"),
    "a sweep that is a photo": ("sweep", "hand.jpg", "--data", "m.parquet", "--out", "new"),
    "a sweep of no recipe": ("sweep", "learning-rates", "--recipe", "none", "--data", "m.parquet", "--out", "new"),
    "a sweep to go on with": ("sweep", "--resume", "photos"),
    "a sweep at a file": ("sweep", "learning-rates", "--data", "m.parquet", "--out", "m.csv"),
    "no sweep": ("sweep",),
    "compare one": ("compare", "unfinished"),
    "compare nothing": ("compare", "none", "other"),
    "compare into a folder": ("compare", "unfinished", "unfinished", "--out", "folder.parquet"),
    "compare into nowhere": ("compare", "unfinished", "unfinished", "--out", "none/x.csv"),
    "a report of nothing": ("report", "none", "--out", "r.html"),
    "a report into nowhere": ("report", "unfinished", "--out", "none/r.html"),
    "a report called otherwise": ("report", "unfinished", "--out", "r.pdf"),
    "embed nothing": ("embed", "none", "--out", "e.parquet"),
    "embed into a folder": ("embed", "unfinished", "--out", "folder.parquet"),
    "a figure of nothing": ("figure", "training", "none", "--out", "f.png"),
    "a figure called otherwise": ("figure", "training", "unfinished", "--out", "f.bmp"),
    "a figure with a long name": ("figure", "training", "unfinished", "--out", "f" * 300 + ".png"),
    "prompts of nothing": ("prompts", "explain", "none"),
    "track nothing": ("track", "none"),
    "a doctor for nothing": ("doctor", "nonsense"),
    "a doctor with a photo": ("doctor", "ok.yaml", "--data", "hand.jpg"),
    "landmarks of a photo": ("data", "landmarks", "hand.jpg", "--out", "new.parquet"),
    "landmarks of nothing": ("data", "landmarks", "none.csv", "--out", "new.parquet"),
    "landmarks without a model": ("data", "landmarks", "m.parquet", "--landmarker", "none", "--out", "new.parquet"),
    "a figure of landmarks without a model": ("figure", "landmarks", "a.jpg", "--landmarker", "none", "--out", "f.png"),
    "a figure of landmarks of a photo": ("figure", "landmarks", "a.jpg", "--data", "hand.jpg", "--out", "f.png"),
    "fewer than no hands": ("data", "render", "--out", "new", "--identities", "-3"),
    "a negative seed of hands": ("data", "render", "--out", "new", "--seed", "-3"),
    "hands at a file": ("data", "render", "--out", "m.csv"),
    "hands below a file": ("data", "render", "--out", "m.csv/x"),
    "a demo at a file": ("demo", "--out", "m.csv"),
    "check a photo": ("data", "check", "hand.jpg"),
    "describe nothing": ("data", "describe", "none.parquet"),
}
# what typer itself refuses, in a box
USAGE: dict[str, Sequence[str]] = {
    "a command that is none": ("nonsense",),
    "a long command": ("n" * 5000,),
    "an option that is none": ("train", "ok.yaml", "--outt", "x"),
    "an option that acts on a terminal": ("train", "ok.yaml", f"--{ESCAPES}"),
    "a number that is none": ("figure", "strip", "unfinished", "--out", "f.png", "--each", "many"),
    "a negative count": ("figure", "attention", "unfinished", "--out", "f.png", "--count", "-1"),
    "a count of 5,000 digits": ("figure", "attention", "unfinished", "--out", "f.png", "--count", "9" * 5000),
    "a choice that is none": ("evaluate", "unfinished", "--protocol", "market"),
    "a choice that is long": ("evaluate", "unfinished", "--protocol", "m" * 5000),
    "a metric that is none": ("report", "unfinished", "--by", "rank2"),
    "one word too many": ("evaluate", "unfinished", ESCAPES),
}


def everything(folder: Path) -> dict[str, object]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def check_one_message(called: Called) -> None:
    assert (called.code, called.out) == (2, "")
    first, *others = called.err.strip("\n").split("\n")
    assert first.split(":")[0].endswith("Error"), called.err
    assert all(other.startswith("  ") for other in others), called.err
    assert len(called.err) < 3000
    assert "Traceback" not in called.err
    assert called.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("what", LINES)
def test_what_is_wrong_is_one_message(what: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    before = everything(place)
    check_one_message(handreid(*LINES[what]))
    assert everything(place) == before


@pytest.mark.parametrize("what", RECIPES)
def test_a_recipe_that_is_none_is_one_message(what: str, tmp_path: Path, place: Path):
    name, text = RECIPES[what]
    (tmp_path / name).write_text(text, encoding="utf-8")
    check_one_message(handreid("train", tmp_path / name, "--data", place / "m.parquet", "--out", tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("what", USAGE)
def test_a_command_line_that_is_none_is_a_short_complaint(what: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    called = handreid(*USAGE[what])
    assert (called.code, called.out) == (2, "")
    assert len(called.err) < 3000
    assert "Traceback" not in called.err
    assert not set(called.err) & set("\x1b\x07\x9b\u202e\u2066\r")


@pytest.mark.parametrize(
    ("command", "former", "present"),
    [
        ("evaluate", "--aspect=all", "--view"),
        ("evaluate", "--mirrored", "--flip-tta"),
        ("embed", "--no-mirrored", "--no-flip-tta"),
        ("train", "--gate=overfit", "--check"),
        ("compare", "--to=best", "--reference"),
        ("report", "--different", "--allow-different-draws"),
    ],
)
def test_a_former_option_is_refused_with_the_present_one(command: str, former: str, present: str, place: Path):
    called = handreid(command, place / "unfinished", former)
    assert called.code == 2
    said = " ".join(called.err.replace("\u2502", " ").split())
    assert f"No such option: {former.partition('=')[0]}; it is called {present} now" in said


def test_a_manifest_or_photo_as_recipe_says_what_to_do(place: Path):
    """Recipe and manifest changed places."""
    for name in ("m.parquet", "hand.jpg"):
        line = complaint("train", place / name, "--data", place / "m.parquet", "--out", place / "x")
        assert line.startswith(f"RecipeError: {place / name} is not a recipe: ")
        assert "photos are given as --data" in line


def raised(error: BaseException) -> tuple[int, str]:
    """Exit code and message of a command that raises."""

    def app() -> None:
        raise error

    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        return ending.run(app), err.getvalue()


SYSTEMS: list[tuple[BaseException, int, str]] = [
    (
        OSError(errno.ENOSPC, "No space left on device", "/x/m"),
        2,
        "OSError: /x/m: No space left on device; the disk is",
    ),
    (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "OSError: /x: Read-only file system; it is read-only"),
    (
        PermissionError(errno.EACCES, "Permission denied", "/x"),
        2,
        "PermissionError: /x: Permission denied; choose another path",
    ),
    (
        FileNotFoundError(errno.ENOENT, "No such file", "a", None, "b"),
        2,
        "FileNotFoundError: a and b: No such file; check",
    ),
    (
        IsADirectoryError(errno.EISDIR, "Is a directory", "/x"),
        2,
        "IsADirectoryError: /x: Is a directory; it is a folder",
    ),
    (OSError("odd"), 2, "OSError: odd"),
    (OSError(), 2, "OSError: no reason given"),
    (OSError(errno.ENOENT, "No such file", "a\x1b[2J\nRecipeError: b"), 2, "a\\x1b[2J\n  RecipeError: b: No such file"),
    (MemoryError(), 2, "MemoryError: not enough memory; use a smaller batch"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "MemoryError: not enough"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "MemoryError: not enough memory"),
    (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates"), 2, "UnicodeEncodeError: 'a\\udcff' cannot be written"),
    (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        2,
        "UnicodeDecodeError: a text file was expected",
    ),
    (KeyboardInterrupt(), 130, "stopped\n"),
    (RecipeError("a\nb"), 2, "RecipeError: a\n  b\n"),
    (RecipeError("x" * 10_000), 2, "... (7,213 more characters)"),
]


@pytest.mark.parametrize(("error", "code", "message"), SYSTEMS, ids=[repr(one[0])[:40] for one in SYSTEMS])
def test_what_the_system_says_is_one_message(error: BaseException, code: int, message: str):
    found, told = raised(error)
    assert found == code
    assert message in told
    assert len(told) < 3000
    assert "Traceback" not in told


def test_a_fault_of_ours_is_a_line_and_a_file_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["handreid", "evaluate", "/photos/of-anna", "--data=secret.parquet"])
    code, told = raised(ValueError("odd value in /photos/of-anna, secret.parquet"))
    (path,) = tmp_path.iterdir()
    assert code == 70
    assert told.startswith("this is a bug in handreid (ValueError: odd value in")
    assert told.count("\n") == 1
    assert str(path) in told
    text = path.read_text()
    assert "test_main.py" in text
    assert "options: --data" in text
    assert "anna" not in text
    assert "secret" not in text
    assert path.stat().st_mode & 0o077 == 0


def test_a_fault_on_a_full_disk_is_a_line(monkeypatch: pytest.MonkeyPatch):
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    code, told = raised(ValueError())
    assert (code, told.count("\n")) == (70, 1)
    assert "(ValueError); no trace could be written (No space left on device)" in told


@pytest.mark.parametrize("command", [("recipes",), ("data", "describe", "m.parquet"), ("data", "check", "m.parquet")])
def test_ctrl_c_anywhere_is_a_line(command: Sequence[str], place: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(place)
    monkeypatch.setattr("handreid.cli.output.table", stop)
    monkeypatch.setattr("handreid.data.check.check", stop)
    called = handreid(*command)
    assert (called.code, called.err.splitlines()[-1]) == (130, "stopped")
    assert "Traceback" not in called.err


class _Broken(io.StringIO):
    """An output whose reader has gone, or whose disk is full."""

    def __init__(self, error: int) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize(("error", "code", "told"), [(errno.EPIPE, 141, ""), (errno.ENOSPC, 2, "No space left on dev")])
@pytest.mark.parametrize("command", [("recipes",), ("recipes", "--json"), ("--version",), ("train", "--help")])
def test_an_output_that_nobody_reads_ends_quietly(command: Sequence[str], error: int, code: int, told: str):
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["handreid", *command])
        patch.setattr(sys, "stdout", _Broken(error))
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == code
    assert told in err.getvalue()
    assert err.getvalue().count("\n") == bool(told)


def test_a_shell_that_closes_our_output():
    """As shells do it: the reader goes, the output is closed, or it is a full disk; also at the very end."""
    start = f"'{sys.executable}' -m handreid"
    lines = {
        f"{start} recipes --json | true; echo ${{PIPESTATUS[0]}}": ("141", ""),
        f"{start} --help | true; echo ${{PIPESTATUS[0]}}": ("141", ""),
        f"{start} recipes >&-; echo $?": ("0", ""),
        f"{start} recipes >/dev/full; echo $?": (
            "2",
            "OSError: standard output: No space left on device; the disk is full",
        ),
        f"{start} train nonsense 2>&-; echo $?": ("2", ""),
    }
    for line, (out, err) in lines.items():
        found = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == out, line
        assert err in found.stderr
        assert found.stderr.count("\n") == bool(err)


def test_refusals_that_need_no_torch_come_before_it(place: Path):
    """One process for all: what is heavy is noticed where the first command brings it in."""
    code = (
        "import contextlib, io, json, sys\n"
        "from handreid.cli import main\n"
        "for what, words in json.load(sys.stdin).items():\n"
        "    sys.argv = ['handreid', *words]\n"
        "    out = io.StringIO()\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):\n"
        "        main()\n"
        "    for heavy in {'torch', 'lightning', 'open_clip', 'polars', 'matplotlib'} & sys.modules.keys():\n"
        "        print(what, heavy)\n"
        "        del sys.modules[heavy]\n"
    )
    needed = ("check a photo", "describe nothing", "a doctor with a photo")  # the manifest's own reader is polars
    asked = {
        what: words for what, words in (LINES | USAGE).items() if what not in needed and "\0" not in "".join(words)
    }
    found = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), cwd=place, capture_output=True, text=True, check=True
    )
    assert found.stdout == ""


RUN = "unfinished"
OUTPUTS: dict[str, Sequence[str]] = {
    "data render": ("data", "render", "--out", "{out}", "--identities", "1"),
    "train": ("train", "ok.yaml", "--data", "m.parquet", "--out", "{out}"),
    "train --resume": ("train", "--resume", "--out", RUN),
    "ladder": ("ladder", "--rungs", "ok.yaml", "--data", "m.parquet", "--out", "{out}"),
    "demo": ("demo", "--out", "{out}"),
    "sweep": ("sweep", "learning-rates", "--data", "m.parquet", "--out", "{out}"),
    "report": ("report", RUN, "--out", "{out}.html"),
    "compare": ("compare", RUN, "other", "--out", "{out}.csv"),
    "evaluate": ("evaluate", "finished"),
    "matrix": ("evaluate", "finished", "--matrix", "view"),
    "embed": ("embed", "finished", "--out", "{out}.parquet"),
    "figure cmc": ("figure", "cmc", RUN, "--out", "{out}.png"),
    "figure ladder": ("figure", "ladder", RUN, "--out", "{out}.png"),
    "figure training": ("figure", "training", RUN, "--out", "{out}.png"),
    "figure matrix": ("figure", "matrix", RUN, "--out", "{out}.png"),
    "figure strip": ("figure", "strip", RUN, "--out", "{out}.png"),
    "figure embedding": ("figure", "embedding", "finished", "--out", "{out}.png"),
    "figure attention": ("figure", "attention", "finished", "--out", "{out}.png"),
    "figure match": ("figure", "match", "finished", "a.jpg", "--out", "{out}.png"),
}


@pytest.fixture
def runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place with a run that looks finished, and whose model nobody may open."""
    folder = shutil.copytree(place, tmp_path / "place")
    shutil.copytree(folder / RUN, folder / "other")
    shutil.copytree(folder / RUN, folder / "finished")
    (folder / "finished" / "model.safetensors").write_bytes(b"")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("what", OUTPUTS)
def test_a_place_that_cannot_be_written_is_known_before_the_work(
    what: str, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever runs these tests may be allowed to write anywhere."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    before = everything(runs)
    line = complaint(*(word.format(out="new") for word in OUTPUTS[what]))
    assert line.startswith("OutputError: ")
    assert "cannot be written (Permission denied); choose another folder" in line
    assert everything(runs) == before


@pytest.mark.parametrize("what", [what for what, words in OUTPUTS.items() if any("{out}" in word for word in words)])
@pytest.mark.parametrize(
    ("out", "reason"),
    [("m.csv/x", "is a file, not a folder"), ("x" * 300, "File name too long"), ("none/\x1b[2J/x", "does not exist")],
)
def test_a_place_that_is_none_is_known_before_the_work(what: str, out: str, reason: str, runs: Path):
    words = [word.format(out=out) for word in OUTPUTS[what]]
    if reason == "does not exist" and out in words:
        return  # such a folder is made
    before = everything(runs)
    line = complaint(*words)
    assert line.startswith("OutputError: ")
    assert reason in line
    assert line.isprintable()
    assert everything(runs) == before


@pytest.mark.parametrize(
    "what", [what for what in OUTPUTS if what.startswith(("figure", "report", "compare", "embed"))]
)
def test_a_folder_in_the_place_of_a_file_is_known_before_the_work(what: str, runs: Path):
    words = [word.format(out="new") for word in OUTPUTS[what]]
    out = runs / words[words.index("--out") + 1]
    out.mkdir()
    assert f"{out.name} is a folder; give the file to write" in complaint(*words)
    if what.startswith("figure"):
        out.rmdir()
        out.with_suffix(".txt").mkdir()
        assert "new.txt is a folder; give the file to write" in complaint(*words)
