"""How a command ends: with its output, or with one error message and an exit code; never with a traceback.

* 2: a HandreidError, or a system error (full disk, no permission, no memory), with a message that names the place.
  Typer's own errors about a command line are 2 as well.
* 70: a bug: one line, and the traceback in a file that can be sent to us. 130: Ctrl-C. 141: the program that reads our
  output has closed it, as `head` does.
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
_USAGE = 1_000  # characters of a message about a command line, which repeats what was typed
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


# former name -> present name, for a hint
_RENAMED_OPTIONS = {
    "--aspect": "--view",
    "--different": "--allow-different-draws",
    "--gate": "--check",
    "--mirrored": "--flip-tta",
    "--no-mirrored": "--no-flip-tta",
    "--to": "--reference",
}


class Group(TyperGroup):
    """All commands. Ctrl-C is handled here, before typer does it; typer's messages are made safe for a terminal."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _safe_complaints():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _safe_complaints():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                sys.exit(_print_error("stopped", STOPPED))


def run(app: Callable[[], object]) -> int:
    """Runs the command line and returns the exit code. Every exception is reported."""
    with _streams():
        try:
            app()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else REFUSED if ended.code else 0
        except BaseException as error:  # what is not reported here would end in a traceback
            code = _report(error)
        else:
            code = 0
        try:
            return _flush(code)
        except SystemExit as ended:  # the reader has closed the pipe
            return code or cast(int, ended.code)


def _report(error: BaseException) -> int:
    """Prints an error's message and returns the exit code."""
    kind = type(error).__name__
    match error:
        case KeyboardInterrupt():
            return _print_error("stopped", STOPPED)
        case HandreidError():
            return _print_error(f"{kind}: {error}", REFUSED)
        case _ if isinstance(error, MemoryError) or _is_torchs_memory(error):
            return _print_error(f"MemoryError: not enough memory; {_MEMORY}", REFUSED)
        case OSError():
            return _print_error(f"{kind}: {_place(error)}", REFUSED)
        case UnicodeError():
            return _print_error(f"{kind}: {_letters(error)}", REFUSED)
        case _:
            return _fault(error)


def _place(error: OSError) -> str:
    """A message with the file or folder, what is wrong with it, and what to do."""
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
    first_line = next(iter(str(error).splitlines()), "")
    summary = f"{type(error).__name__}: {shortened(first_line, 300)}".removesuffix(": ")
    try:
        where = f"the trace is in {_trace(error)}: please read it through, then send it to us"
    except OSError as problem:
        where = f"no trace could be written ({problem.strerror})"
    return _print_error(f"this is a bug in handreid ({summary}); {where}", FAULT)


def _trace(error: BaseException) -> str:
    """Writes the traceback to a file and returns its path. Names and paths from the command line are replaced in it."""
    trace = "".join(traceback.format_exception(error))
    typed = sys.argv[2 + (sys.argv[1:2] in (["data"], ["figure"], ["prompts"])) :]  # after the command's name
    options = [word.partition("=")[0] for word in typed if word.startswith("--")]
    values = {word.partition("=")[2] if word.startswith("--") else word for word in typed}
    for value in sorted(filter(lambda value: len(value) > 3, values), key=len, reverse=True):
        trace = trace.replace(value, "<an argument>")
    home = os.path.expanduser("~")  # noqa: PTH111 - as text
    trace = trace.replace(home, "~") if len(home) > 1 else trace
    head = f"handreid {__version__}, Python {python_version()}, {platform()}\noptions: {' '.join(options)}\n\n"
    handle, path = tempfile.mkstemp(prefix="handreid-trace-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(head + trace)
    return path


def _print_error(text: str, code: int) -> int:
    """Prints one message on standard error if it is open; returns the code."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{shortened(lines(text))}\n")
        sys.stderr.flush()
    return code


@contextmanager
def _safe_complaints() -> Iterator[None]:
    """Shortens and escapes typer's messages, which repeat what was typed, or what the shell expanded from `*`."""
    try:
        yield
    except Exception as error:
        complaint: Any = error
        if hasattr(error, "format_message"):
            new_name = _RENAMED_OPTIONS.get(getattr(complaint, "option_name", ""))
            text = (
                f"No such option: {complaint.option_name}; it is called {new_name} now"
                if new_name
                else complaint.format_message()
            )
            text = shortened(line(text), _USAGE)
            complaint.format_message = lambda: text
        raise


class _Stream:
    """An output stream that ends the process quietly if its reader is gone, and names itself in other errors."""

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
    """Standard output and error that always exist, accept any character, and detect that the reader is gone."""
    before = sys.stdout, sys.stderr
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the parent process: the next file opened would get its number
            os.open(os.devnull, os.O_RDWR)
    for name, description, stream in (
        ("stdout", "standard output", before[0]),
        ("stderr", "standard error", before[1]),
    ):
        opened = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if hasattr(opened, "reconfigure"):
            opened.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, _Stream(opened, description)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _flush(code: int) -> int:
    """Flushes standard output and error; returns the code, or that of an error."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        return _print_error(f"{type(error).__name__}: {_place(error)}", code or REFUSED)
    return code


def _into_nothing(stream: Any) -> None:
    """Redirects the stream to the null device; else Python writes the rest at exit, and fails."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
