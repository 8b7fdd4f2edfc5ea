"""Files on disk: written completely or not at all, and read with one clear error where they were changed.

* Files are written under a temporary name and moved into place (`write_atomic`). Two writers never share a temporary
  name; what a killed process left is removed by the next writer of the same file.
* A JSON file carries the SHA-256 of its own content (`write_json`), which is compared when it is read. Other files are
  compared with a hash that is noted in their folder (`file_hash`).
* A folder is locked while a process works in it (`locked`). One in which a killed process had only begun counts as new
  (`beginning`, `is_free`).
"""

from handreid.files.atomic import interrupted, sync, write_atomic, write_text
from handreid.files.checksums import CHECKSUM, checksum, file_hash
from handreid.files.json_files import read_json, write_json
from handreid.files.locks import BEGINNING, LOCK, beginning, is_free, locked
from handreid.files.nested import first_difference, flat
from handreid.files.paths import TOWERS, cache_folder, check_folder_writable, check_writable, found_file, is_folder
from handreid.files.room import format_bytes, free_bytes
from handreid.files.temporary import remove_stale

__all__ = [
    "BEGINNING",
    "CHECKSUM",
    "LOCK",
    "TOWERS",
    "beginning",
    "cache_folder",
    "check_folder_writable",
    "check_writable",
    "checksum",
    "file_hash",
    "first_difference",
    "flat",
    "format_bytes",
    "found_file",
    "free_bytes",
    "interrupted",
    "is_folder",
    "is_free",
    "locked",
    "read_json",
    "remove_stale",
    "sync",
    "write_atomic",
    "write_json",
    "write_text",
]
