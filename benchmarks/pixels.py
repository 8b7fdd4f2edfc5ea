"""How far do plain pixels get? Rank-1 of Euclidean distance between photos shrunk to 32 x 32, by the data's protocol.

The floor under every table: photos taken in a row, under one light, are alike without anything being recognised.

    python benchmarks/pixels.py MANIFEST [--protocol hands11k]
"""

import argparse
from pathlib import Path

import numpy as np

from handreid.data.loading import decode_all
from handreid.data.manifest import read
from handreid.data.splits import make_split, natural_protocol
from handreid.metrics.intervals import intervals
from handreid.metrics.ranking import rank_from_similarity
from handreid.metrics.ranking_metrics import hit
from handreid.types import Preprocessing

SMALL = Preprocessing((32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--protocol", choices=["hands11k", "hd", "disjoint", "prepared"])
    parser.add_argument("--test-share", type=float, default=0.5)
    arguments = parser.parse_args()
    manifest = read(arguments.manifest)
    protocol = arguments.protocol or natural_protocol(manifest)
    split = make_split(manifest, protocol=protocol, label=manifest.label_kinds[-1], test_share=arguments.test_share)
    pixels = decode_all(manifest.paths(), SMALL).reshape(len(manifest), -1).astype(np.float64)
    labels = np.unique(split.identities, return_inverse=True)[1]
    people = np.unique(split.subjects, return_inverse=True)[1]
    hits = []
    for draw in split.test:
        query, gallery = pixels[draw.query], pixels[draw.gallery]
        squared = np.square(query).sum(1)[:, None] + np.square(gallery).sum(1) - 2 * query @ gallery.T
        hits.append(hit(rank_from_similarity(-squared, labels[draw.query], labels[draw.gallery]), 1))
    queries = np.concatenate([draw.query for draw in split.test])
    draws = np.repeat(np.arange(len(split.test)), [len(draw.query) for draw in split.test])
    found = intervals({"rank1": np.concatenate(hits)}, people[queries], draws)["rank1"]
    print(
        f"rank-1 {100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}], draws {split.draws_hash[:8]}"
    )


if __name__ == "__main__":
    main()
