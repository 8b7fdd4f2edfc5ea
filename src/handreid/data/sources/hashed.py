"""Adds the SHA-256 of each photo's file to a manifest."""

from dataclasses import replace

import polars as pl

from handreid.data.manifest import Manifest
from handreid.data.photo_hashes import file_hashes
from handreid.data.tables import raise_all
from handreid.progress import Progress


def hashed(manifest: Manifest, progress: Progress | None = None) -> Manifest:
    """The manifest with the column `sha256` filled. All photos are read once.

    Raises ManifestError for a photo that does not match the hash that the manifest already states, or does not exist;
    PhotoError for one that cannot be read.
    """
    digests = file_hashes(manifest.paths(), progress)
    wrong = []
    for row, (stated, digest) in enumerate(zip(manifest.table["sha256"], digests, strict=True)):
        place = f"{manifest.table['origin'][row]}: {manifest.table['path'][row]}"
        if digest is None:
            wrong.append(f"{place} no longer exists")
        elif stated is not None and stated != digest:
            wrong.append(f"{place} does not match its sha256 ({stated[:16]}..., its file has {digest[:16]}...)")
    raise_all(wrong, "Copy these photos again, or remove the column sha256 if they were changed on purpose.")
    return replace(manifest, table=manifest.table.with_columns(sha256=pl.Series(digests, dtype=pl.String)))
