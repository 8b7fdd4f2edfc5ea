"""Finds the photos below a folder, and sorts all other files.

* A folder is entered once, identified by device and inode, so that links neither multiply photos nor lead in circles;
  the real folder has priority over links to it. Files that are links count as photos of their own; only within one
  person and one draw does a file count once, whatever its names (`Files.once`).
* A folder that cannot be listed is an error, so that no person is lost because of it.
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
# what systems and network disks put beside photos: thumbnails, waste bins, and folders that may not be read
_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})

_Key = tuple[int, int | str]  # device and inode, or the path where a system has no inodes


@dataclass
class Files:
    """Paths below a folder, relative to it, with forward slashes, sorted; all are valid text.

    `folders` are those entered, with the root as the empty path. `unread` are photos in formats that are not read here.
    `dangling` are links whose photo, or folder, does not exist. `links` maps folders that were not entered again to the
    folder that has their photos. `keys` identifies files; a file without inode has none. `linked` are photos that are
    links.
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
        """Notes on what was left out, by kind and with counts."""
        lines = []
        if self.unread:
            lines.append(
                f"{len(self.unread)} photos that cannot be read left out: {by_kind(self.unread)} "
                f"({format_list(self.unread, 3)}); save them as JPEG or PNG{_heif_advice(self.unread)}"
            )
        if self.others:
            lines.append(f"{len(self.others)} files that are not photos left out: {by_kind(self.others)}")
        if self.links:
            listing = format_list(
                (f"{link} is {where or 'the folder itself'}" for link, where in sorted(self.links.items())), 3
            )
            lines.append(f"{len(self.links)} links to folders that are already included, left out: {listing}")
        if self.hidden:
            lines.append(f"{len(self.hidden)} hidden folders ignored: {format_list(sorted(self.hidden), 3)}")
        return tuple(lines)

    def without_dangling(self, allow_missing: bool) -> tuple[str, ...]:
        """Notes on broken links. Raises ManifestError if there are any, unless `allow_missing`."""
        if not self.dangling:
            return ()
        what = f"{len(self.dangling)} photos or folders are broken links: {format_list(self.dangling)}"
        if allow_missing:
            return (f"{what}; left out",)
        raise ManifestError(f"{self.root}: {what}. Repair the links, or leave these photos out with --allow-missing")

    def once(self, place: Callable[[str], Hashable]) -> tuple[list[str], tuple[str, ...]]:
        """The photos without second names of the same file in the same `place`, and a note.

        A place should hold a photo once. One file under two people stays under both, so that `check` reports it.
        """
        owners: dict[Hashable, str] = {}
        twice = {}
        for path in sorted(self.photos, key=lambda path: (path in self.linked, path)):
            key = self.keys.get(path)
            if key is None or (original := owners.setdefault((place(path), key), path)) == path:
                continue
            # a key may repeat without a link where the inodes of a file system are not unique
            if path in self.linked or (self.root / path).stat().st_nlink > 1:
                twice[path] = original
        listing = format_list((f"{path} is {original}" for path, original in sorted(twice.items())), 3)
        note = (f"{len(twice)} links to photos that are already included, left out: {listing}",)
        return [path for path in self.photos if path not in twice], note if twice else ()

    def lost(self, persons: Iterable[str], photos: Sequence[str]) -> tuple[str, ...]:
        """A note that names the folders of persons without any photo, each with its content."""
        depth_of = {person: person.count("/") + 1 for person in persons}
        depths = set(depth_of.values())
        with_photo = {_top(path, depth) for path in photos for depth in depths}
        leftovers: dict[str, list[str]] = {}
        for path in (*self.unread, *self.others, *self.dangling):
            for depth in depths:
                leftovers.setdefault(_top(path, depth), []).append(path)
        empty = sorted(person for person in depth_of if person not in with_photo)
        contents = {person: self._instead(person, leftovers.get(person, [])) for person in empty}
        listing = format_list(f"{printable(person)} ({content})" for person, content in contents.items())
        return (
            (f"{len(empty)} identity folders hold no readable photo, so these identities are left out: {listing}",)
            if empty
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

    `memory` maps the name of a top folder to a key; a folder is entered once for each key. Raises ManifestError where a
    folder cannot be listed, or names of photos are not UTF-8.
    """
    walk = _Walk(folder, memory)
    walk.go()
    files = walk.files
    strange = sorted(printable(path) for path in (*files.photos, *files.dangling) if not is_utf8(path))
    if strange:
        raise ManifestError(
            f"{printable(folder)}: {len(strange)} photos have names that are not UTF-8: "
            f"{format_list(strange, 3)}; rename "
            "them, for instance with `convmv -f latin1 -t utf8 -r --notest`"
        )
    for paths in (files.photos, files.unread, files.others, files.dangling, files.folders, files.hidden):
        paths[:] = sorted(map(printable, paths))
    return files


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
            status = (self._root / folder).stat()
        except OSError as error:
            if not folder and error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise ManifestError(f"{printable(self._root)}: no such folder") from None
            raise self._unreadable(folder, error) from None
        if not folder and not stat.S_ISDIR(status.st_mode):
            raise ManifestError(
                f"{printable(self._root)} is a file, not a folder of photos; if it is an archive, unpack it first"
            )
        return status.st_dev, status.st_ino or os.path.realpath(self._root / folder)

    def _enter(self, folder: str) -> None:
        key = self._key(folder)
        memory = self._memory(folder.split("/", 1)[0])
        entered = "" if key == self._top else self._entered.setdefault((memory, key), folder)
        if entered == folder:
            self._list(folder, key[0])
        else:
            self.files.links[printable(folder)] = printable(entered)

    def _list(self, folder: str, device: int) -> None:
        self.files.folders.append(folder)
        try:
            with os.scandir(self._root / folder) as entries:
                listing = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise self._unreadable(folder, error) from None
        for entry in listing:
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
            person = not _suffix(path)  # may be the folder of a person: it has no suffix
            lost = (_is_photo(path) or person) and not _is_hidden(path)
            (self.files.dangling if lost else self.files.others).append(path)
            return
        if stat.S_ISDIR(mode) or (not link and entry.is_dir(follow_symlinks=False)):
            self._take_folder(entry.name, path, link)
        elif stat.S_ISREG(mode) or (not link and entry.is_file(follow_symlinks=False)):
            self._take_file(entry, path, device, link)
        else:
            self.files.others.append(f"{path}/")  # a file's path never ends with a slash: see _kind

    def _take_folder(self, name: str, path: str, link: bool) -> None:
        if name.startswith(".") or name in _JUNK_FOLDERS:
            self.files.hidden.append(path)
        elif link:
            heapq.heappush(self._links, path)
        else:
            self._real.append(path)

    def _take_file(self, entry: os.DirEntry[str], path: str, device: int, link: bool) -> None:
        if not _is_photo(path) or not _opens(self._root, path):
            target = self.files.unread if _suffix(path) in _OTHER_PHOTOS and not _is_hidden(path) else self.files.others
            target.append(path)
            return
        self.files.photos.append(path)
        status = entry.stat() if link else None
        key = (status.st_dev, status.st_ino) if status else (device, entry.inode())
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
    """Whether pillow_heif can open a HEIC file: several formats have this suffix, not all are read. True for others."""
    if _suffix(path) not in _HEIF:
        return True
    try:
        import_module("pillow_heif").open_heif(root / path)
    except Exception:  # its own errors and Python's, for whatever is in the file
        return False
    return True
