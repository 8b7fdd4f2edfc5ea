"""The HTML report: one file with a whole experiment, which opens offline, can be printed, and names its sources.

* Everything comes from run folders. If something is missing (photos that were moved, curves of a run that was not
  trained), the page says so.
* Tables and interval charts are plain HTML; only curves and the map need the script. plotly is packed into the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from handreid.errors import HandreidError, RunError
from handreid.files import check_writable, write_atomic
from handreid.progress import NullProgress, Progress
from handreid.recipe import dump_recipe
from handreid.report.compare.runs import Compared, Comparison, compare_runs, run_folders
from handreid.report.compare.tables import changes_table
from handreid.report.figures import style
from handreid.report.page import charts, data_card, matrices, seeds, summary_text, tables
from handreid.report.page import photos as page_photos
from handreid.report.page.rendering import rendered
from handreid.report.photos.test_photos import load_test_photos
from handreid.runs.folder import Run


def write_report(
    paths: Sequence[Path],
    out: Path,
    *,
    by: str = "rank1",
    reference: Literal["first", "best"] = "first",
    show: str | None = None,
    photos: bool = True,
    different: bool = False,
    title: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the page about runs, or folders of runs, and returns its path.

    Photos are those of the run called `show`, by default of the best run by `by`. `different` allows runs on other
    draws. Raises OutputError if `out` cannot be written, RunError for a folder that is no run, or if none is evaluated.
    """
    check_writable(out, (".html",))
    progress = progress or NullProgress()
    folders = run_folders(paths, every_seed=False)
    done = [folder for folder in folders if Run(folder).evaluation.exists()]
    if not done:
        raise RunError(
            f"none of {len(folders)} runs is evaluated; evaluate them first: `handreid evaluate {folders[0]}`"
        )
    comparison = compare_runs(done, by=by, reference=reference, different=different, progress=progress)
    displayed = _displayed(comparison, show)
    left_out = [folder.name for folder in folders if folder not in done]
    over_seeds = seeds.ladders(paths)
    notes = [seeds.NOTE] if over_seeds else []
    notes += [f"Not evaluated, and left out: {', '.join(left_out)}."] if left_out else []
    content, data = _content(comparison, displayed, photos, notes, progress)
    content["seeds"] = over_seeds
    content["title"] = title or _title(comparison)
    text = rendered(content, data)
    write_atomic(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _displayed(comparison: Comparison, name: str | None) -> Compared:
    if name is None:
        return max(comparison.runs, key=lambda run: run.evaluation.metrics[comparison.by].value)
    for run in comparison.runs:
        if name in (run.name, run.folder.name):
            return run
    names = ", ".join(run.name for run in comparison.runs)
    raise RunError(f"no run of this report has the name {name!r}; the names are {names}")


def _content(
    comparison: Comparison, displayed: Compared, photos: bool, notes: list[str], progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content for the template, and data for its script."""
    data: dict[str, Any] = {"palette": list(style.CATEGORIES), "panels": 0, "map": None}
    data["cmc"], cmc_caption = charts.cmc(comparison, displayed.name)
    training = charts.training(comparison.runs, displayed.name)
    if training is not None:
        data["training"], data["panels"] = training.pop("data"), training["panels"]
    content: dict[str, Any] = {
        "lede": summary_text.headline(comparison, displayed),
        "facts": summary_text.facts(comparison, displayed),
        "story": summary_text.paragraphs(comparison, displayed),
        "abouts": [(run.name, run.recipe.about) for run in comparison.runs if len(comparison.runs) > 1],
        "notes": [tables.sentence(note) for note in (*comparison.notes, *notes)],
        "table": tables.results(comparison, displayed.name),
        "changed": changes_table(comparison),
        "ladder": tables.chart(comparison),
        "cmc": cmc_caption,
        "training": training,
        "separations": tables.separations(comparison),
        "sections": tables.sections(comparison),
        "matrices": matrices.tables(comparison.runs),
        "cards": data_card.data_cards(comparison.runs),
        "environment": data_card.environments(comparison.runs),
        "recipes": [(run.name, dump_recipe(run.recipe)) for run in comparison.runs],
    }
    photo_sections, data["map"], problem = _pictures(displayed, photos, progress)
    if problem:
        content["notes"].append(problem)
    return content | photo_sections, data


def _pictures(
    displayed: Compared, photos: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None, str | None]:
    """Sections about test photos, the map's data for the script, and if something is missing, the reason."""
    nothing = {"strips": None, "map": None, "looks": None, "mixed": None}
    try:
        tested = load_test_photos(Run(displayed.folder), progress=progress)
        return page_photos.sections(tested, displayed, photos, progress)
    except HandreidError as error:
        return nothing, None, f"There are no rankings and no map of {displayed.name}: {error}."


def _title(comparison: Comparison) -> str:
    if len(comparison.runs) == 1:
        return comparison.runs[0].name
    return f"{len(comparison.runs)} runs compared"
