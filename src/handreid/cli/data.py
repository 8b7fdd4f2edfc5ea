"""`handreid data`: make, check and describe a manifest of photos, find hands, caption, render and perturb photos."""

import math
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, hands, output
from handreid.cli.options import ManifestFile
from handreid.data.names import printable
from handreid.errors import ManifestError, OutputError
from handreid.progress import default_progress

app = typer.Typer(
    help="Photos: prepare, check and describe manifests; find hands; captions; render hands.", no_args_is_help=True
)


class Source(StrEnum):
    hands11k = "hands11k"
    hd = "hd"
    folders = "folders"
    csv = "csv"


@app.command()
def prepare(
    source: Annotated[Source, typer.Argument(help="Layout of the photos.")],
    root: Annotated[Path, typer.Argument(help="Folder of the photos; for csv, the table.")],
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out rows whose photo is missing.")
    ] = False,
    outside_root: Annotated[
        bool, typer.Option("--outside-root", help="For csv: allow absolute paths and paths outside the table's folder.")
    ] = False,
    pixel_aspect: Annotated[
        str | None,
        typer.Option(
            help="What the photos' width is multiplied by to see them as they were taken: 4/3 for photos of 4:3 that "
            "were squashed to squares.",
            metavar="RATIO",
        ),
    ] = None,
) -> None:
    """Write the manifest of a data set: one row per photo, with the SHA-256 of its file.

    **hands11k**: `Hands/` and `HandInfo.csv` as published. **hd**: PolyU Hand Dorsal, `1-501` and `502-712`.
    **folders**: `root/<identity>/*.jpg`, or trees split into train/val/test/query0../gallery0... **csv**: a table with
    at least the columns path and subject.
    """
    from handreid.data import sources
    from handreid.data.landmark_columns import with_pixel_aspect
    from handreid.data.manifest import check_target

    if outside_root and source is not Source.csv:
        raise ManifestError(f"--outside-root works with csv only; the photos of {source} are always below its folder")
    check_target(out, root.parent if source is Source.csv else root, outside_root)
    _not_over_input(out, source, root)
    aspect = _ratio(pixel_aspect)
    match source:
        case Source.hands11k:
            manifest = sources.hands11k(root, allow_missing=allow_missing)
        case Source.hd:
            manifest = sources.hd(root, allow_missing=allow_missing)
        case Source.folders:
            manifest = sources.folders(root, allow_missing=allow_missing)
        case Source.csv:
            manifest = sources.csv(root, allow_missing=allow_missing, outside_root=outside_root)
    manifest = sources.hashed(with_pixel_aspect(manifest, aspect), default_progress())
    manifest.write(out)
    for note in manifest.notes:
        output.echo(f"note: {note}")
    people = manifest.table["subject"].drop_nulls().n_unique()
    output.echo(f"{printable(out)}: {len(manifest):,} photos of {people:,} subjects, hash {manifest.hash[:16]}")


def _not_over_input(out: Path, source: Source, root: Path) -> None:
    """Raises OutputError if the manifest would replace the table that it is made from, also under another name."""
    from handreid.data.names import Spellings, folded

    tables = [root] if source is Source.csv else []
    if source is Source.hands11k:
        tables = [root / name for name in Spellings(root, folded).candidates("HandInfo.csv")]
    if any(os.path.exists(out) and os.path.exists(table) and out.samefile(table) for table in tables):  # noqa: PTH110
        raise OutputError(f"{printable(out)} is the input table; write the manifest to another path")


def _ratio(text: str | None) -> float | None:
    """A number, or one divided by another: `4/3`."""
    if text is None:
        return None
    above, _, below = text.partition("/")
    try:
        ratio = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        ratio = math.nan
    if not 0.1 <= ratio <= 10:
        raise ManifestError(f"--pixel-aspect is {text!r}; give a number from 0.1 to 10, or a ratio, such as 4/3")
    return ratio


@app.command()
def check(
    manifest: ManifestFile,
    pixels: Annotated[bool, typer.Option(help="Decode every photo.")] = True,
) -> None:
    """Check the photos and their metadata. Exits with 1 if there are errors."""
    from handreid.data.check import check as check_manifest
    from handreid.data.manifest import read

    photos = read(manifest)
    with default_progress().step("checking photos", len(photos) if pixels else 0, "photos") as advance:
        findings = check_manifest(photos, pixels=pixels, progress=advance)
    for finding in findings:
        output.echo(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in findings)
    output.echo(f"{printable(manifest)}: {len(photos):,} photos, {errors} errors, {len(findings) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


@app.command()
def describe(
    manifest: ManifestFile,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Count photos, people and views, and show the split of each protocol."""
    from handreid.data.describe import describe as describe_manifest
    from handreid.data.manifest import read

    content = describe_manifest(read(manifest))
    if json:
        output.as_json(content)
    else:
        output.description(content)


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    identities: Annotated[int, typer.Option(help="Number of people; each has two hands.", max=1_000_000)] = 200,
    photos: Annotated[int, typer.Option(help="Photos of each person, spread over the four views.", max=10_000)] = 8,
    size: Annotated[int, typer.Option(help="Side in pixels.", max=4096)] = 128,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed draws the same photos.")] = 0,
) -> None:
    """Draw photos of synthetic hands with known identities, and write their manifest."""
    from handreid.files import check_folder_writable, check_writable

    check_folder_writable(out)
    if out.is_dir():
        check_writable(out / "manifest.parquet")
    from handreid.data.rendered.folder import missing_photos

    missing_photos(out, identities=identities, photos=photos, seed=seed, size=size)  # refuses before polars is loaded
    from handreid.data.manifest import read
    from handreid.data.rendered.prepared_folder import prepare_rendered

    path = prepare_rendered(
        out, identities=identities, photos=photos, seed=seed, size=size, progress=default_progress()
    )
    manifest = read(path)
    output.echo(f"{printable(path)}: {len(manifest):,} photos of {identities:,} people, hash {manifest.hash[:16]}")


app.command()(hands.landmarks)
app.command()(hands.quality)


@app.command()
def caption(
    manifest: ManifestFile,
    columns: Annotated[
        str, typer.Option(help="Columns to say, separated by commas; the first are the most important.")
    ],
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv; it may be the same.")],
    wordings: Annotated[int, typer.Option(help="Different sentences for each photo.", min=1, max=32)] = 4,
    leave_out: Annotated[
        float,
        typer.Option(
            help="Share of the facts, beside the view, that each wording but the first leaves out at random.",
            min=0,
            max=0.95,
        ),
    ] = 0.0,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own words for a column: 'lighting=under {value} light'. Repeat it for more columns or wordings.",
            metavar="COLUMN=TEXT",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed writes the same captions.")] = 0,
) -> None:
    """Write captions of the photos from columns of the manifest, as sentences in several wordings.

    Unknown values are left out. Gender and age are said only if --columns names them. A cell holds the wordings
    separated by ` | `; training draws one per epoch.
    """
    early.manifests([manifest])
    from handreid.data.captioning.manifest import add_captions, caption_notes
    from handreid.data.captioning.templates import parse_template
    from handreid.data.captions import wordings as wordings_of
    from handreid.data.manifest import check_target, read

    templates: dict[str, list[str]] = {}
    for column, words in map(parse_template, template or []):
        templates.setdefault(column, []).append(words)
    photos = read(manifest)
    check_target(out, photos.root, photos.outside_root)
    captioned = add_captions(
        photos, columns.split(","), wordings=wordings, leave_out=leave_out, seed=seed, templates=templates
    )
    captioned.write(out)
    for note in caption_notes(captioned):
        output.echo(f"note: {note}")
    path, example = next(filter(lambda row: row[1], zip(photos.table["path"], wordings_of(captioned), strict=True)))
    for text in example:
        output.echo(f"{path}: {text}")
    output.echo(f"{printable(out)}: {len(captioned):,} photos, hash {captioned.hash[:16]}")


@app.command()
def perturb(
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="New folder for the copies and their manifest.")],
    seed: Annotated[int, typer.Option(help="Random seed; the same seed makes the same copies.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the copies in pixels.", min=32, max=4096)] = 512,
    backgrounds: Annotated[
        str,
        typer.Option(
            help="generated: colours, gradients, stripes, clouds; kept: each photo's own; or a folder of photos.",
            metavar="generated|kept|FOLDER",
        ),
    ] = "generated",
) -> None:
    """Copy the photos turned by any angle, scaled (0.6 to 1), shifted, and on other backgrounds.

    To test a model on photos as phones take them. Landmarks are moved with the photos, exactly. A hand on a light table
    is cut out; other photos are put on the background whole.
    """
    early.manifests([manifest])
    from handreid.files import check_folder_writable

    check_folder_writable(out)
    from handreid.data.manifest import read
    from handreid.data.perturb import MANIFEST, Backgrounds
    from handreid.data.perturb import perturb as write_copies

    named: dict[str, Backgrounds] = {"generated": "generated", "kept": "kept"}
    behind = named.get(backgrounds, Path(backgrounds))
    copies = write_copies(read(manifest), out, seed=seed, size=size, backgrounds=behind, progress=default_progress())
    output.echo(f"{printable(out / MANIFEST)}: {len(copies):,} photos, hash {copies.hash[:16]}")
