"""`handreid data`: photos become a manifest, a manifest is checked and described, hands are rendered."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import output
from handreid.progress import for_people

app = typer.Typer(help="Photos: prepare, check and describe manifests; render hands.", no_args_is_help=True)


class Source(StrEnum):
    hands11k = "hands11k"
    hd = "hd"
    folders = "folders"
    csv = "csv"


Manifest = Annotated[Path, typer.Argument(help="Manifest, .parquet or .csv.", metavar="MANIFEST")]


@app.command()
def prepare(
    source: Annotated[Source, typer.Argument(help="Layout of the photos.")],
    root: Annotated[Path, typer.Argument(help="Folder of the photos; for csv the table.")],
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without photos that are absent.")
    ] = False,
) -> None:
    """Write the manifest of a data set: one row per photo.

    **hands11k**: `Hands/` and `HandInfo.csv` as published. **hd**: PolyU Hand Dorsal, `1-501` and `502-712`.
    **folders**: `root/<identity>/*.jpg`, or trees split into train/val/test/query0../gallery0... **csv**: a table with
    at least the columns path and subject.
    """
    from handreid.data import sources

    match source:
        case Source.hands11k:
            manifest = sources.hands11k(root, allow_missing=allow_missing)
        case Source.hd:
            manifest = sources.hd(root)
        case Source.folders:
            manifest = sources.folders(root)
        case Source.csv:
            manifest = sources.csv(root)
    manifest.write(out)
    for note in manifest.notes:
        output.echo(f"note: {note}")
    people = manifest.table["subject"].n_unique()
    output.echo(f"{out}: {len(manifest):,} photos of {people:,} subjects, hash {manifest.hash[:16]}")


@app.command()
def check(
    manifest: Manifest,
    pixels: Annotated[bool, typer.Option(help="Decode every photo.")] = True,
) -> None:
    """Find what is wrong with the photos and what is said about them; exits with 1 when something is."""
    from handreid.data.check import check as check_manifest
    from handreid.data.manifest import read

    found = read(manifest)
    with for_people().step("checking photos", len(found) if pixels else 0, "photos") as advance:
        findings = check_manifest(found, pixels=pixels, progress=advance)
    for finding in findings:
        output.echo(f"{finding.severity}: {finding.message}")
    errors = sum(finding.severity == "error" for finding in findings)
    output.echo(f"{manifest}: {len(found):,} photos, {errors} errors, {len(findings) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


@app.command()
def describe(
    manifest: Manifest,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Count photos, people and views, and what each protocol would make of them."""
    from handreid.data.describe import describe as describe_manifest
    from handreid.data.manifest import read

    found = describe_manifest(read(manifest))
    if json:
        output.as_json(found)
    else:
        output.description(found)


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    identities: Annotated[int, typer.Option(help="People, two hands each.", max=1_000_000)] = 200,
    photos: Annotated[int, typer.Option(help="Photos of each person, dealt over the four aspects.", max=10_000)] = 8,
    size: Annotated[int, typer.Option(help="Side in pixels.", max=4096)] = 128,
    seed: Annotated[int, typer.Option(help="The same seed draws the same photos.")] = 0,
) -> None:
    """Draw hands nobody owns, with known identity, and their manifest."""
    from handreid.files import check_folder_writable, check_writable

    check_folder_writable(out)
    if out.is_dir():
        check_writable(out / "manifest.parquet")
    from handreid.data.rendered import render as render_hands

    with for_people().step("rendering", identities * photos, "photos") as advance:
        table = render_hands(out, identities=identities, photos=photos, seed=seed, size=size, progress=advance)
    from handreid.data import sources

    manifest = sources.csv(table)
    manifest.write(out / "manifest.parquet")
    output.echo(
        f"{out / 'manifest.parquet'}: {len(manifest):,} photos of {identities:,} people, hash {manifest.hash[:16]}"
    )
