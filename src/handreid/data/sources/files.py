"""Which files below a folder are photos, and what becomes of all the others.

* A folder is entered once, known by device and inode, so that links neither multiply photos nor lead in circles; the
  real folder goes before links to it. Files that are links are photos of their own: only within one person and one
  draw does a file count once, whatever it is called there (`Files.once`).
* What cannot be listed is an error: a person must not be lost because a folder could not be read.
"""

import errno
import heapq
import os
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from handreid.data.names import is_utf8, printable
from handreid.data.tables import format_list
from handreid.errors import ManifestError

_HEIF = (".heic", ".heif", ".hif")
_DECODED = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif")
_HEIF_IS_READ = find_spec("pillow_heif") is not None
PHOTO_SUFFIXES = (*_DECODED, *(_HEIF if _HEIF_IS_READ else ()))
_OTHER_PHOTOS = frozenset(
    {*_HEIF, ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2"}
    | {".raf", ".pef", ".srw", ".x3f", ".psd", ".eps", ".svg", ".tga", ".pcx", ".ppm", ".pgm", ".pbm", ".pnm", ".exr"}
)
# what systems and network disks put beside photos: thumbnails, waste, and what nobody may read
_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})

_Key = tuple[int, int | str]  # device and inode, or the path where a system has no inodes


@dataclass
class Files:
    """Paths below a folder, with forward slashes and relative to it, in order; all text.

    `folders` are those entered, with the root as the empty path. `unread` are photos in formats that are not read here.
    `dangling` are links whose photo, or folder, is gone. `links` has the folders that were not entered
    again, and where their photos are. `keys` tells files that are one; a file that no system can tell has none.
    """

    root: Path
    photos: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    keys: dict[str, _Key] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)

    def notes(self) -> tuple[str, ...]:
        """What was left out, by kind and with counts."""
        found = []
        if self.unread:
            found.append(
                f"{len(self.unread)} photos that cannot be read left out: {by_kind(self.unread)} "
                f"({format_list(self.unread, 3)}); save them as JPEG or PNG{_heif_advice(self.unread)}"
            )
        if self.others:
            found.append(f"{len(self.others)} files that are not photos left out: {by_kind(self.others)}")
        if self.links:
            told = format_list(
                (f"{link} is {where or 'the folder itself'}" for link, where in sorted(self.links.items())), 3
            )
            found.append(f"{len(self.links)} links to folders that are already included, left out: {told}")
        if self.hidden:
            found.append(f"{len(self.hidden)} hidden folders ignored: {format_list(sorted(self.hidden), 3)}")
        return tuple(found)

    def without_dangling(self, allow_missing: bool) -> tuple[str, ...]:
        """Notes on links to nothing. Raises ManifestError unless they may be missing."""
        if not self.dangling:
            return ()
        what = f"{len(self.dangling)} photos or folders are broken links: {format_list(self.dangling)}"
        if allow_missing:
            return (f"{what}; left out",)
        raise ManifestError(f"{self.root}: {what}. Repair the links, or leave these photos out with --allow-missing")

    def once(self, place: Callable[[str], Hashable]) -> tuple[list[str], tuple[str, ...]]:
        """The photos without those that are another name of a file which is a photo of the same place, and a note.

        A place is what should hold a photo once. One file under two people stays under both, so that `check` tells.
        """
        taken: dict[Hashable, str] = {}
        twice = {}
        for path in sorted(self.photos, key=lambda path: (path in self.linked, path)):
            key = self.keys.get(path)
            if key is None or (first := taken.setdefault((place(path), key), path)) == path:
                continue
            if path in self.linked or (self.root / path).stat().st_nlink > 1:  # else numbers of a poor file system
                twice[path] = first
        told = format_list((f"{path} is {first}" for path, first in sorted(twice.items())), 3)
        note = (f"{len(twice)} links to photos that are already included, left out: {told}",)
        return [path for path in self.photos if path not in twice], note if twice else ()

    def lost(self, persons: Iterable[str], kept: Sequence[str]) -> tuple[str, ...]:
        """A note that names the folders of persons below which no photo is left, each with what is there instead."""
        depth_of = {person: person.count("/") + 1 for person in persons}
        depths = set(depth_of.values())
        with_photo = {_top(path, depth) for path in kept for depth in depths}
        left: dict[str, list[str]] = {}
        for path in (*self.unread, *self.others, *self.dangling):
            for depth in depths:
                left.setdefault(_top(path, depth), []).append(path)
        gone = sorted(person for person in depth_of if person not in with_photo)
        told = format_list(f"{printable(person)} ({self._instead(person, left.get(person, []))})" for person in gone)
        return (
            (f"{len(gone)} identity folders hold no readable photo, so these identities are left out: {told}",)
            if gone
            else ()
        )

    def _instead(self, person: str, files: Sequence[str]) -> str:
        if person in self.links:
            return f"a link to {self.links[person] or 'the folder itself'}"
        if person in self.dangling:
            return "a broken link"
        return by_kind(files) if files else "empty"


def by_kind(paths: Iterable[str]) -> str:
    """`2 .heic, 1 .txt`: the most frequent first."""
    counts = Counter(_kind(path) for path in paths)
    return format_list(
        f"{count:,} {kind}" for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def files_below(folder: Path, memory: Callable[[str], str] = lambda _: "") -> Files:
    """All files below a folder, at any depth. Hidden ones (`._1.jpg` of a Mac) count as no photos.

    A folder is entered once for each value of `memory`, which is told the name of the top folder. Raises ManifestError
    where a folder cannot be listed, or photos have names that are no text.
    """
    walk = _Walk(folder, memory)
    walk.go()
    found = walk.files
    strange = sorted(printable(path) for path in (*found.photos, *found.dangling) if not is_utf8(path))
    if strange:
        raise ManifestError(
            f"{printable(folder)}: {len(strange)} photos have names that are not UTF-8: "
            f"{format_list(strange, 3)}; rename "
            "them, for instance with `convmv -f latin1 -t utf8 -r --notest`"
        )
    for paths in (found.photos, found.unread, found.others, found.dangling, found.folders, found.hidden):
        paths[:] = sorted(map(printable, paths))
    return found


class _Walk:
    def __init__(self, root: Path, memory: Callable[[str], str]) -> None:
        self.files = Files(root)
        self._root = root
        self._memory = memory
        self._real: list[str] = []
        self._links: list[str] = []
        self._entered: dict[tuple[str, _Key], str] = {}

    def go(self) -> None:
        self._top = self._key("")
        self._list("", self._top[0])
        while self._real or self._links:
            self._enter(self._real.pop() if self._real else heapq.heappop(self._links))

    def _key(self, folder: str) -> _Key:
        try:
            found = (self._root / folder).stat()
        except OSError as error:
            if not folder and error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise ManifestError(f"{printable(self._root)}: no such folder") from None
            raise self._unreadable(folder, error) from None
        if not folder and not stat.S_ISDIR(found.st_mode):
            raise ManifestError(
                f"{printable(self._root)} is a file, not a folder of photos; if it is an archive, unpack it first"
            )
        return found.st_dev, found.st_ino or os.path.realpath(self._root / folder)

    def _enter(self, folder: str) -> None:
        key = self._key(folder)
        memory = self._memory(folder.split("/", 1)[0])
        first = "" if key == self._top else self._entered.setdefault((memory, key), folder)
        if first == folder:
            self._list(folder, key[0])
        else:
            self.files.links[printable(folder)] = printable(first)

    def _list(self, folder: str, device: int) -> None:
        self.files.folders.append(folder)
        try:
            with os.scandir(self._root / folder) as entries:
                every = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise self._unreadable(folder, error) from None
        for entry in every:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                self._take(entry, path, device)
            except OSError as error:
                raise self._unreadable(path, error) from None

    def _take(self, entry: os.DirEntry[str], path: str, device: int) -> None:
        link = entry.is_symlink()
        try:
            mode = entry.stat().st_mode if link else 0
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            person = not _suffix(path)  # perhaps: a folder has no suffix
            lost = (_is_photo(path) or person) and not _is_hidden(path)
            (self.files.dangling if lost else self.files.others).append(path)
            return
        if stat.S_ISDIR(mode) or (not link and entry.is_dir(follow_symlinks=False)):
            self._take_folder(entry.name, path, link)
        elif stat.S_ISREG(mode) or (not link and entry.is_file(follow_symlinks=False)):
            self._take_file(entry, path, device, link)
        else:
            self.files.others.append(f"{path}/")  # no file ends so: see _kind

    def _take_folder(self, name: str, path: str, link: bool) -> None:
        if name.startswith(".") or name in _JUNK_FOLDERS:
            self.files.hidden.append(path)
        elif link:
            heapq.heappush(self._links, path)
        else:
            self._real.append(path)

    def _take_file(self, entry: os.DirEntry[str], path: str, device: int, link: bool) -> None:
        if not _is_photo(path) or not _opens(self._root, path):
            kept = self.files.unread if _suffix(path) in _OTHER_PHOTOS and not _is_hidden(path) else self.files.others
            kept.append(path)
            return
        self.files.photos.append(path)
        found = entry.stat() if link else None
        key = (found.st_dev, found.st_ino) if found else (device, entry.inode())
        if key[1]:
            self.files.keys[path] = key
        if link:
            self.files.linked.add(path)

    def _unreadable(self, path: str, error: OSError) -> ManifestError:
        return ManifestError(
            f"{printable(self._root / path)} cannot be read ({error.strerror}); repair it, or move it out of the "
            "folder; otherwise photos, and perhaps a person, would be missing"
        )


def _is_photo(path: str) -> bool:
    return not _is_hidden(path) and _suffix(path) in PHOTO_SUFFIXES


def _is_hidden(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(".")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path for each of many files takes seconds


def _kind(path: str) -> str:
    if path.endswith("/"):
        return "special (neither file nor folder)"
    name = path.rsplit("/", 1)[-1]
    if name.startswith("."):
        return name if name in (".DS_Store", ".keep", ".gitkeep", ".directory", ".localized") else "hidden"
    suffix = _suffix(path)
    plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 9
    return suffix if plain else ("without a suffix" if not suffix else "of another kind")


def _top(path: str, depth: int) -> str:
    return "/".join(path.split("/")[:depth])


def _heif_advice(paths: Iterable[str]) -> str:
    needed = not _HEIF_IS_READ and any(_suffix(path) in _HEIF for path in paths)
    return ", or install pillow-heif for HEIC" if needed else ""


def _opens(root: Path, path: str) -> bool:
    """Whether this is what its suffix says: under HEIC there are several formats, which are not all read."""
    if _suffix(path) not in _HEIF:
        return True
    try:
        import_module("pillow_heif").open_heif(root / path)
    except Exception:  # its own errors and Python's, for whatever is in the file
        return False
    return True
