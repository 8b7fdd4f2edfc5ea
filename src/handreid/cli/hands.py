"""`handreid data landmarks` and `data quality`: find the hands on photos, and measure how well they are seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Landmarker, ManifestFile, begin, resumable
from handreid.data.names import printable
from handreid.progress import default_progress

if TYPE_CHECKING:
    from handreid.data.manifest import Manifest


def landmarks(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv; it may be the same.")],
    landmarker: Landmarker = None,
    points: Annotated[
        Path | None,
        typer.Option(
            help="Table of another landmarker instead: path, x0, y0 to x20, y20 in pixels of the photo.", metavar="CSV"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per core.", min=1, show_default=False)
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill-views",
            help="Fill empty sides and aspects, marked as predicted. Landmarks that every photo has are kept, unless "
            "--landmarker or --points is given.",
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="With --fill-views: a run whose embeddings help to tell backs from palms.", metavar="RUN"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="With --fill-views: the probability (0.5 to 1) below which a cell stays empty. [default: 0.9]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Find the hand on every photo: 21 points, score, handedness, number of hands.

    With MediaPipe's Hand Landmarker, whose model is downloaded once; this needs the extra `handreid[landmarks]`.
    Photos without a hand, or with several, are counted and named. What was found is kept in the cache.
    """
    early.manifests([manifest])
    early.view_options(fill, model, threshold)
    if points is None and not fill:
        early.landmarker(landmarker)
    from handreid.data.landmark_columns import landmark_notes, landmarks_from_table
    from handreid.data.landmark_search import add_landmarks, all_searched
    from handreid.data.manifest import check_target, read
    from handreid.data.predicted_views import THRESHOLD, view_notes
    from handreid.landmarks.model_file import landmarker_file

    photos = read(manifest)
    check_target(out, photos.root, photos.outside_root)
    searches = points is None and not (fill and landmarker is None and all_searched(photos))
    if searches and fill:
        early.landmarker(landmarker)
    with resumable("the same command"):
        found = photos
        if points is not None:
            found = landmarks_from_table(photos, points)
        elif searches:
            found = add_landmarks(photos, landmarker_file(landmarker), workers=workers, progress=default_progress())
        if fill:
            found = _with_views(found, model, THRESHOLD if threshold is None else threshold)
        found.write(out)
    for note in [*landmark_notes(found), *(view_notes(found) if fill else ())]:
        output.echo(f"note: {note}")
    output.echo(f"{printable(out)}: {len(found):,} photos, hash {found.hash[:16]}")


def _with_views(photos: "Manifest", model: Path | None, threshold: float) -> "Manifest":
    """With empty sides and aspects filled; torch is loaded only where a run helps."""
    from handreid.data.predicted_views import fill_views

    if model is None:
        return fill_views(photos, threshold=threshold)
    progress = begin()
    from handreid.evaluation.view_probe import predict_views
    from handreid.runs.folder import open_run

    return predict_views(photos, open_run(model), threshold=threshold, progress=progress)


def quality(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv; it may be the same.")],
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per core.", min=1, show_default=False)
    ] = None,
) -> None:
    """Measure how well each hand can be seen: size, sharpness, exposure, points inside, slant; and one number.

    On a manifest with landmarks. `quality` is 0 to 100: 0 for a photo without a hand, empty where nobody looked.
    """
    early.manifests([manifest])
    from handreid.data.manifest import check_target, read
    from handreid.data.quality import NOTE, add_quality

    photos = read(manifest)
    check_target(out, photos.root, photos.outside_root)
    measured = add_quality(photos, workers=workers, progress=default_progress())
    measured.write(out)
    for note in measured.notes:
        if note.startswith(NOTE):
            output.echo(f"note: {note}")
    output.echo(f"{printable(out)}: {len(measured):,} photos, hash {measured.hash[:16]}")
