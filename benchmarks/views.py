"""How well sides and aspects are predicted for people whose views are known, as if they were not.

    python benchmarks/views.py MANIFEST [--protocol hands11k] [--model RUN]

MANIFEST has landmarks; photos without a hand are left out. With `--protocol` only the photos that it tests are used,
else all. What is known of them is removed, and predicted by landmarks alone, by a probe on RUN's embeddings with the
thumb's place alone, and by both. Intervals are over people. What is left empty at threshold 0.5 counts as wrong.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from handreid.data.landmark_columns import read_landmarks
from handreid.data.manifest import Manifest, read
from handreid.data.predicted_views import THRESHOLD, fill_views, view_notes
from handreid.data.splits import evaluated_rows, make_split
from handreid.evaluation.view_probe import fill_by_logits, fit_view_probe
from handreid.landmarks import HandLandmarks
from handreid.landmarks.view import view_probabilities
from handreid.metrics.intervals import intervals
from handreid.runs.folder import open_run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--protocol", choices=("hands11k", "disjoint", "prepared"))
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    truth = read(given.manifest)
    if given.protocol:
        truth = replace(truth, table=truth.table[evaluated_rows(make_split(truth, protocol=given.protocol)).tolist()])
    truth = truth.filter(pl.col("landmarks").is_not_null())
    empty = [pl.lit(None, pl.String).alias(name) for name in ("side", "aspect")]
    photos = replace(truth, table=truth.table.with_columns(empty))
    print(f"{len(truth)} photos of {truth.table['subject'].n_unique()} people, manifest {truth.hash[:8]}")
    report("landmarks alone", truth, fill_views(photos, threshold=0.5))
    if given.model:
        probe = fit_view_probe(open_run(given.model))
        logits = probe.logits(photos, np.arange(len(photos)))
        report("probe and thumb", truth, by_probe(photos, logits))
        both = fill_by_logits(photos, range(len(photos)), logits, threshold=0.5, by=str(probe))
        report("both", truth, both)
        print(view_notes(both)[0])


def by_probe(photos: Manifest, logits: np.ndarray) -> Manifest:
    """The views by the probe's answers and the thumb's place, without the handedness and without limits."""
    cells = [guess(hand, logit > 0) for hand, logit in zip(read_landmarks(photos), logits, strict=True)]
    table = photos.table.with_columns(
        aspect=pl.Series([aspect for aspect, _ in cells], dtype=pl.String),
        side=pl.Series([side for _, side in cells], dtype=pl.String),
    )
    return replace(photos, table=table)


def guess(hand: HandLandmarks | None, back: bool) -> tuple[str, str | None]:
    aspect = "dorsal" if back else "palmar"
    if hand is None:
        return aspect, None
    sides = view_probabilities(replace(hand, handedness=None), aspect=aspect).sum(axis=0)
    return aspect, "left" if sides[0] > 0.5 else "right"


def report(name: str, truth: Manifest, every: Manifest) -> None:
    """Shares that are right among all photos, and among those that reach the default threshold."""
    people = np.unique(truth.table["subject"].to_numpy(), return_inverse=True)[1]
    right = {column: (every.table[column] == truth.table[column]).fill_null(value=False).to_numpy().astype(float)
             for column in ("side", "aspect")}  # fmt: skip
    right["view"] = right["side"] * right["aspect"]
    told = [
        f"{column} {bounds.value:.1%} [{bounds.low:.1%}, {bounds.high:.1%}] ({int((1 - right[column]).sum())} wrong)"
        for column, bounds in intervals(right, people).items()
    ]
    print(f"{name}: {', '.join(told)}")
    if "side_probability" in every.table.columns:
        filled = (every.table["side_probability"] >= THRESHOLD).fill_null(value=False).to_numpy()
        of_filled = np.where(filled, right["view"], np.nan)
        bounds = intervals({"view": of_filled}, people)["view"]
        print(
            f"    threshold {THRESHOLD}: {filled.mean():.1%} filled, of these right {bounds.value:.1%} "
            f"[{bounds.low:.1%}, {bounds.high:.1%}] ({int(np.nansum(1 - of_filled))} wrong)"
        )


if __name__ == "__main__":
    main()
