"""Photos from a table made by hand, one row each."""

from pathlib import Path

from handreid.data.manifest import Manifest, read_csv
from handreid.data.sources.absent import without_absent


def csv(path: Path | str, allow_missing: bool = False, outside_root: bool = False) -> Manifest:
    """The photos of a CSV file; see `read_csv`.

    Raises ManifestError when photos are absent; with `allow_missing` their rows are left out, and counted in the
    notes. `outside_root` lets paths be absolute or leave the table's folder, which is refused otherwise.
    """
    path = Path(path)
    return without_absent(read_csv(path, outside_root=outside_root), path.name, allow_missing)
