"""Checks before torch is imported, which takes seconds: names, places to write to, missing files.

The same checks are made again where the work is done, for callers that do not use the command line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handreid.errors import DataError, ManifestError, RunError
from handreid.files import check_folder_writable, check_writable

if TYPE_CHECKING:
    from handreid.recipe import Recipe

PICTURE = (".png", ".svg", ".pdf")


def manifests(paths: Sequence[Path | None]) -> None:
    """Raises ManifestError for a missing file, and for one that is neither .parquet nor .csv."""
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise ManifestError(f"{path} is a folder; make a manifest of it with `handreid data prepare`")
        if path.suffix not in (".parquet", ".csv"):
            recipe = " (a recipe is given without --data)" if path.suffix in (".yaml", ".yml") else ""
            raise ManifestError(f"{path}: a manifest is a .parquet or .csv file, not {path.suffix!r}{recipe}")
        if not path.is_file():
            raise ManifestError(f"{path}: no such file; make one with `handreid data prepare`")


def photos(recipe: "Recipe", data: Path | None) -> None:
    """Raises RunError if neither `data` nor the recipe gives photos, ManifestError as `manifests` does, and OutputError
    if photos that the recipe renders have no place.
    """
    if data is None and recipe.data.rendered is not None:
        from handreid.runs.rendered_photos import room_for

        room_for(recipe.data.rendered)
        return
    if data is None and recipe.data.manifest is None:
        raise RunError("no photos are given: use --data MANIFEST, or set data.manifest or data.rendered in the recipe")
    manifests([data or recipe.data.manifest])


def training(recipe: "Recipe | None", data: Path | None, out: Path, *, resume: bool) -> None:
    """Raises RunError if there is nothing to start or to resume, or `out` holds something else."""
    from handreid.runs.folder import check_place

    if not (resume and (out / "run.json").is_file()):
        if recipe is None:
            raise RunError(f"{out} holds no run to resume; give a recipe to start one")
        photos(recipe, data)
        check_place(out, recipe)
    else:
        check_folder_writable(out)
    manifests([data])


def ladder(recipes: "Sequence[Recipe]", data: Path | None, out: Path, seeds: int = 1) -> None:
    """Raises RunError for two rungs of one name and as `plan_rungs` does, errors of `photos`, and OutputError if `out`
    cannot be written.
    """
    from handreid.recipe.load import check_names
    from handreid.workflows.seeds import plan_rungs

    check_names(recipes)
    for recipe in recipes:
        photos(recipe, data)
    check_folder_writable(out)
    plan_rungs(recipes, out, seeds)


def run(folder: Path, *, finished: bool = False, writes: bool = False) -> None:
    """Raises RunError if it is no run folder, or with `finished` an unfinished one; with `writes`, OutputError if it
    cannot be written to.
    """
    from handreid.runs.folder import check_finished, open_run

    opened = open_run(folder)
    if finished:
        check_finished(opened)
    if writes:
        check_folder_writable(folder, create=False)


def runs(paths: Sequence[Path], *, least: int = 1) -> None:
    """Raises RunError for a path that is no run and contains none, or for fewer runs than `least`."""
    from handreid.report.run_folders import run_folders

    folders = run_folders(paths)
    if len(folders) < least:
        raise RunError(f"only one run is given ({folders[0]}); give two or more, or a folder of runs")


def landmarker(file: Path | None) -> None:
    """Raises WeightsError where LiteRT is not installed, before a model is downloaded that nothing could run, and for a
    file that does not exist.
    """
    from handreid.landmarks.mediapipe import check_installed
    from handreid.landmarks.model_file import landmarker_file

    check_installed()
    if file is not None:
        landmarker_file(file)


def view_options(fill: bool, model: Path | None, threshold: float | None) -> None:
    """Raises DataError for options that need --fill-views, and for a wrong threshold; RunError as `run` does."""
    if not fill and (model is not None or threshold is not None):
        raise DataError(f"--{'threshold' if model is None else 'model'} works with --fill-views only; add it")
    if threshold is not None:
        from handreid.data.predicted_views import check_threshold

        check_threshold(threshold)
    if model is not None:
        run(model, finished=True)


def picture(out: Path, suffixes: Sequence[str] = PICTURE) -> None:
    """Raises OutputError if a figure, or its caption beside it, cannot be written."""
    check_writable(out, suffixes)
    check_writable(out.with_suffix(".txt"))
