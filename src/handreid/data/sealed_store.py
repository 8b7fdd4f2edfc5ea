"""Facts about photos that took long to find, in a small database that several processes may use at once.

Every text carries a seal, so that a damaged row counts as none; a damaged database is replaced by a new one.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class SealedStore:
    """Texts by the hash of the photo's file, or by a longer key that begins with it; `column` names the texts."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database: sqlite3.Connection | None = self._opened()
        except OSError:  # what cannot be stored is computed again
            self._database = None

    def look_up(self, keys: Sequence[str]) -> dict[str, str]:
        if self._database is None:
            return {}
        texts: dict[str, str] = {}
        with self._repaired():
            for start in range(0, len(keys), 500):
                batch = keys[start : start + 500]
                marks = ",".join("?" * len(batch))
                query = f"SELECT file, {self._column}, seal FROM photos WHERE file IN ({marks})"  # noqa: S608 - marks alone
                texts |= {k: t for k, t, seal in self._database.execute(query, batch) if seal == _seal(k, t)}
        return texts

    def add(self, texts: Mapping[str, str]) -> None:
        if self._database is None or not texts:
            return
        with self._repaired(), self._database:
            rows = [(key, text, _seal(key, text)) for key, text in texts.items()]
            self._database.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    @contextlib.contextmanager
    def _repaired(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError:  # damaged, locked for long, or the disk is full: only time is lost
            if self._database is not None:
                self._database.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._database = None

    def _opened(self) -> sqlite3.Connection | None:
        for _ in range(2):
            try:
                database = sqlite3.connect(self._path, timeout=30)
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS photos (file TEXT PRIMARY KEY, {self._column} TEXT, seal TEXT)"
                )
            except sqlite3.DatabaseError:
                self._path.unlink(missing_ok=True)
            else:
                return database
        return None


def _seal(key: str, text: str) -> str:
    return hashlib.sha256(f"{key} {text}".encode()).hexdigest()[:16]
