"""How a command ends: with its output, or with one error message and an exit code; never with a trace.

* 2: a HandreidError, or an error of the system (a full disk, no permission, no memory): a message that names the
  place. Typer's own complaints about a command line are 2 as well.
* 70: a bug: one line, and the trace in a file that can be sent to us. 130: Ctrl-C. 141: the program that read our
  output went away, as `head` does.
"""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from platform import platform, python_version
from typing import Any, TextIO, cast

from typer.core import TyperGroup

from handreid import __version__
from handreid.errors import HandreidError
from handreid.messages import line, lines, shortened

REFUSED, FAULT, STOPPED, LEFT = 2, 70, 130, 141
_USAGE = 1_000  # characters of a complaint about a command line, which repeats what was typed
_MEMORY = "use a smaller batch (--set stages.0.batch_size=...), fewer or smaller photos, or a machine with more memory"
_PLACES = {
    errno.ENOSPC: "the disk is full: free some space, or choose another folder",
    errno.EDQUOT: "your disk quota is used up: free some space, or choose another folder",
    errno.EACCES: "choose another path, or change its permissions",
    errno.EPERM: "choose another path, or change its permissions",
    errno.EROFS: "it is read-only: choose another folder",
    errno.ENOENT: "check the spelling",
    errno.ENOTDIR: "part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "this process has too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many open files: end other programs",
}


# Options by their former names, for command lines that were written before.
_RENAMED_OPTIONS = {
    "--aspect": "--view",
    "--different": "--allow-different-draws",
    "--gate": "--check",
    "--mirrored": "--flip-tta",
    "--no-mirrored": "--no-flip-tta",
    "--to": "--reference",
}


class Group(TyperGroup):
    """All commands. Ctrl-C is told here, before typer ends for it; complaints are made safe for a terminal."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with _safe_complaints():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        with _safe_complaints():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                sys.exit(_tell("stopped", STOPPED))


def run(app: Callable[[], object]) -> int:
    """Runs the command line to its end; the exit code. Everything that was raised has been told."""
    with _streams():
        try:
            app()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else REFUSED if left.code else 0
        except BaseException as error:  # the last place: what is not told here would be a trace
            code = _told(error)
        else:
            code = 0
        try:
            return _flushed(code)
        except SystemExit as left:  # nobody reads any more
            return code or cast(int, left.code)


def _told(error: BaseException) -> int:
    """Prints the message of an error; returns the exit code."""
    kind = type(error).__name__
    match error:
        case KeyboardInterrupt():
            return _tell("stopped", STOPPED)
        case HandreidError():
            return _tell(f"{kind}: {error}", REFUSED)
        case _ if isinstance(error, MemoryError) or _is_torchs_memory(error):
            return _tell(f"MemoryError: not enough memory; {_MEMORY}", REFUSED)
        case OSError():
            return _tell(f"{kind}: {_place(error)}", REFUSED)
        case UnicodeError():
            return _tell(f"{kind}: {_letters(error)}", REFUSED)
        case _:
            return _fault(error)


def _place(error: OSError) -> str:
    """Which file or folder, what is wrong with it, and what to do."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or str(error) or "no reason given"
    advice = _PLACES.get(error.errno or 0)
    where = f"{' and '.join(names)}: " if names else ""
    return f"{where}{reason}" + (f"; {advice}" if advice else "")


def _letters(error: UnicodeError) -> str:
    if isinstance(error, UnicodeEncodeError):
        return f"{shortened(ascii(error.object), 200)} cannot be written as {error.encoding}; rename it"
    return f"a text file was expected, but this one is not text ({error}); check that it is the right file"


def _is_torchs_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _fault(error: BaseException) -> int:
    first = next(iter(str(error).splitlines()), "")
    told = f"{type(error).__name__}: {shortened(first, 300)}".removesuffix(": ")
    try:
        where = f"the trace is in {_trace(error)}: please read it through, then send it to us"
    except OSError as problem:
        where = f"no trace could be written ({problem.strerror})"
    return _tell(f"this is a bug in handreid ({told}); {where}", FAULT)


def _trace(error: BaseException) -> str:
    """The file of a trace: code, not data. What was typed as a name or path is left out wherever it stands in it."""
    told = "".join(traceback.format_exception(error))
    typed = sys.argv[2 + (sys.argv[1:2] in (["data"], ["figure"], ["prompts"])) :]  # behind the command's name
    options = [word.partition("=")[0] for word in typed if word.startswith("--")]
    values = {word.partition("=")[2] if word.startswith("--") else word for word in typed}
    for value in sorted(filter(lambda value: len(value) > 3, values), key=len, reverse=True):
        told = told.replace(value, "<an argument>")
    home = os.path.expanduser("~")  # noqa: PTH111 - as text
    told = told.replace(home, "~") if len(home) > 1 else told
    head = f"handreid {__version__}, Python {python_version()}, {platform()}\noptions: {' '.join(options)}\n\n"
    handle, path = tempfile.mkstemp(prefix="handreid-trace-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(head + told)
    return path


def _tell(text: str, code: int) -> int:
    """Prints one message on standard error if it is open; returns the code."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{shortened(lines(text))}\n")
        sys.stderr.flush()
    return code


@contextmanager
def _safe_complaints() -> Iterator[None]:
    """Typer repeats what was typed, or what a shell made of `*`: as long as it is, and raw."""
    try:
        yield
    except Exception as error:
        said: Any = error
        if hasattr(error, "format_message"):
            now = _RENAMED_OPTIONS.get(getattr(said, "option_name", ""))
            text = f"No such option: {said.option_name}; it is called {now} now" if now else said.format_message()
            text = shortened(line(text), _USAGE)
            said.format_message = lambda: text
        raise


class _Stream:
    """An output that ends the process quietly when nobody reads it any more, and says which it is when it fails."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            raise self._failed(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failed(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError) -> BaseException:
        _into_nothing(self._stream)
        error.filename = self._name
        return SystemExit(LEFT) if isinstance(error, BrokenPipeError) else error


@contextmanager
def _streams() -> Iterator[None]:
    """Standard output and error that are always there, take any letter, and notice when nobody reads."""
    before = sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by whoever started us: the next file opened would take its place
            os.open(os.devnull, os.O_RDWR)
    for name, said, stream in (("stdout", "standard output", before[0]), ("stderr", "standard error", before[1])):
        open_one = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if hasattr(open_one, "reconfigure"):
            open_one.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, _Stream(open_one, said)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _flushed(code: int) -> int:
    """The code, when everything has been written."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        return _tell(f"{type(error).__name__}: {_place(error)}", code or REFUSED)
    return code


def _into_nothing(stream: Any) -> None:
    """Python would try to write what is left when it ends, and complain."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
