"""One file that holds a whole experiment: it opens offline, prints, and says where its numbers are from.

* Everything is made from run folders. What a folder lacks (photos that have moved, curves of a run that was never
  trained) is said on the page, and nothing is made up for it.
* Tables and dots are plain HTML; only curves and the map need the script, and plotly travels packed inside the page.
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
from handreid.report.page import charts, data_card, matrices, summary_text, tables
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

    Photos are those of the run called `show`, else of the best by `by`. `different` compares runs on other draws
    anyway. Raises DataError when `out` has no place, RunError for what is not a run, or when none is evaluated.
    """
    check_writable(out, (".html",))
    progress = progress or NullProgress()
    folders = run_folders(paths)
    done = [folder for folder in folders if Run(folder).evaluation.exists()]
    if not done:
        raise RunError(
            f"none of {len(folders)} runs is evaluated; evaluate them first: `handreid evaluate {folders[0]}`"
        )
    comparison = compare_runs(done, by=by, reference=reference, different=different, progress=progress)
    shown = _shown(comparison, show)
    left_out = [folder.name for folder in folders if folder not in done]
    notes = [f"Not evaluated, and left out: {', '.join(left_out)}."] if left_out else []
    content, data = _content(comparison, shown, photos, notes, progress)
    content["title"] = title or _title(comparison)
    text = rendered(content, data)
    write_atomic(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _shown(comparison: Comparison, wanted: str | None) -> Compared:
    if wanted is None:
        return max(comparison.runs, key=lambda run: run.evaluation.metrics[comparison.by].value)
    for run in comparison.runs:
        if wanted in (run.name, run.folder.name):
            return run
    names = ", ".join(run.name for run in comparison.runs)
    raise RunError(f"no run of this report has the name {wanted!r}; the names are {names}")


def _content(
    comparison: Comparison, shown: Compared, photos: bool, notes: list[str], progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the template shows, and what the script draws."""
    data: dict[str, Any] = {"palette": list(style.CATEGORIES), "panels": 0, "map": None}
    data["cmc"], cmc_caption = charts.cmc(comparison, shown.name)
    training = charts.training(comparison.runs, shown.name)
    if training is not None:
        data["training"], data["panels"] = training.pop("data"), training["panels"]
    content: dict[str, Any] = {
        "lede": summary_text.headline(comparison, shown),
        "facts": summary_text.facts(comparison, shown),
        "story": summary_text.paragraphs(comparison, shown),
        "abouts": [(run.name, run.recipe.about) for run in comparison.runs if len(comparison.runs) > 1],
        "notes": [tables.sentence(note) for note in (*comparison.notes, *notes)],
        "table": tables.results(comparison, shown.name),
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
    seen, data["map"], problem = _pictures(shown, photos, progress)
    if problem:
        content["notes"].append(problem)
    return content | seen, data


def _pictures(
    shown: Compared, photos: bool, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any] | None, str | None]:
    """Sections about test photos, what the script needs of the map, and why there is none of it if there is none."""
    nothing = {"strips": None, "map": None, "looks": None, "mixed": None}
    try:
        tested = load_test_photos(Run(shown.folder), progress=progress)
        return page_photos.sections(tested, shown, photos, progress)
    except HandreidError as error:
        return nothing, None, f"There are no rankings and no map of {shown.name}: {error}."


def _title(comparison: Comparison) -> str:
    if len(comparison.runs) == 1:
        return comparison.runs[0].name
    return f"{len(comparison.runs)} runs compared"
