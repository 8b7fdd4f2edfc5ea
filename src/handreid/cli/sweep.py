"""`handreid sweep` and `handreid sweeps`: find the best values of a recipe by validation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, Json, Set, Track, begin, resumable, trackers

if TYPE_CHECKING:
    from handreid.recipe.load_sweep import Design


def sweep(
    sweep: Annotated[
        str | None, typer.Argument(help="Built-in name or YAML file of a sweep.", metavar="[SWEEP]")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write, or to continue in.  [default: sweeps/NAME]")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue the sweep in this folder with its original settings.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Vary this recipe (name or file) instead of the sweep's.")
    ] = None,
    set_: Set = None,
    concurrent: Annotated[
        int | None, typer.Option("--concurrent", help="Trials to run at a time, instead of the sweep's value.", min=1)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Running Ray cluster, as HOST:PORT or auto; its machines need access to --out and the photos.",
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed trials again.")] = False,
    check: Annotated[bool, typer.Option("--check", help="List and check the trials without training.")] = False,
    track: Track = None,
    json: Json = False,
) -> None:
    """Train a recipe with many values of its keys and rank them by validation; test photos are not used."""
    from handreid.files import check_folder_writable

    design, folder = _chosen(sweep, out, resume, recipe, set_ or [])
    if concurrent:
        design = design.running(concurrent)
    tracked = trackers(track)
    early.manifests([data])
    check_folder_writable(folder)
    progress = begin()
    if check:
        _check(design, data, folder, elsewhere=address is not None)
        return
    from handreid.sweep.run import run_sweep

    if resume and tracked is None:  # the recipe in that folder may be anybody's
        tracked = ()
        if "tracking" in design.identity["recipe"]:
            output.echo("note: the sweep's recipe names trackers; a resumed sweep logs to them only with --track")
    with resumable(f"handreid sweep --resume {folder}", begun=lambda: (folder / "sweep.json").is_file()):
        content = run_sweep(design, data, folder, address=address, retry=retry, track=tracked, progress=progress)
        after_sweep(folder)
    if json:
        output.as_json(content)
        return
    _print(content, folder)


def sweeps(json: Json = False) -> None:
    """List the built-in sweeps, each in a line."""
    from handreid.recipe.load_sweep import builtin_sweeps, load_sweep

    designs = {name: load_sweep(name).sweep for name in builtin_sweeps()}
    if json:
        output.as_json({name: design.model_dump(mode="json") for name, design in designs.items()})
        return
    rows = [
        (name, design.recipe, f"{design.settings} by {design.search}", design.about) for name, design in designs.items()
    ]
    output.table("built-in sweeps", ("name", "recipe", "settings", "about"), rows, left=4)


def after_sweep(folder: Path) -> list[Path]:
    """Writes the figure and the report of a finished sweep; returns the paths written."""
    from handreid.report.figures.sweep import sweep_figure

    return [*sweep_figure(folder, folder / "sweep.png"), write_page(folder, folder / "report.html")]


def write_page(folder: Path, out: Path) -> Path:
    """The sweep as a page; see `report.page.sweep`."""
    from handreid.report.page.sweep import write_sweep_report
    from handreid.runs.records import read_sweep
    from handreid.sweep.summary import columns, rows, selection_caveat

    content = read_sweep(folder, ended=True)
    return write_sweep_report(
        folder, out, columns=columns(content), rows=rows(content), caution=selection_caveat(content, folder.name)
    )


def add_to(app: typer.Typer) -> None:
    app.command()(sweep)
    app.command()(sweeps)


def _chosen(
    name: str | None, out: Path | None, resume: Path | None, recipe: str | None, overrides: list[str]
) -> "tuple[Design, Path]":
    from handreid.errors import RecipeError
    from handreid.recipe.load_sweep import load_sweep
    from handreid.sweep.trials import load_design

    if resume is not None:
        options = {"SWEEP": name, "--out": out, "--recipe": recipe, "--set": overrides}
        present = [option for option, value in options.items() if value]
        if present:
            raise RecipeError(f"--resume continues a sweep with its original settings: omit {', '.join(present)}")
        return load_design(resume), resume
    if name is None:
        raise RecipeError(
            "no sweep is given: use a name (`handreid sweeps` lists them), a YAML file, or --resume FOLDER"
        )
    design = load_sweep(name, recipe=recipe, overrides=overrides)
    return design, out or Path("sweeps") / design.sweep.name


def _check(design: "Design", data: Path | None, folder: Path, *, elsewhere: bool) -> None:
    from handreid.sweep.checks import check_builds, check_settings, describe_settings, idle_scheduler, load_inputs
    from handreid.sweep.search import grid, propose

    check_settings(design)
    sweep, idle = design.sweep, idle_scheduler(design)
    if idle:
        output.echo(f"note: {idle}")
    if data is not None:
        ground = load_inputs(design, data)
        check_builds(design, ground.material.path, ground.material, folder, elsewhere=elsewhere)
    else:
        output.echo("note: without --data no model is built and the split is not checked")
    seeds = f", each with {len(sweep.seeds)} seeds" if sweep.seeds else ""
    output.echo(f"sweep {sweep.name} of {sweep.recipe} can start: {sweep.settings} settings by {sweep.search}{seeds}")
    settings = list(grid(sweep)) if sweep.search == "grid" else []
    if sweep.search == "random":
        settings = [drawn for number in range(sweep.settings) if (drawn := propose(sweep, number, []))]
    for setting in settings:
        output.echo(f"  {describe_settings(setting)}")


def _print(content: dict[str, Any], folder: Path) -> None:
    from handreid.sweep.summary import columns, importance_lines, rows, selection_caveat

    words = len(content["short_names"]) + 1
    output.table(f"sweep {content['sweep']}", columns(content), rows(content), left=words)
    for line in importance_lines(content):
        output.echo(line)
    output.echo(
        f"written to {folder / 'sweep.md'}, sweep.json, sweep.png, report.html"
        + (", best.yaml" if content["best"] else "")
    )
    output.echo(selection_caveat(content, str(folder)))
