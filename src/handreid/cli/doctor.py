"""`handreid doctor`: the environment, and the checks of a recipe before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, Json, LongChecks, Set, begin, resumable
from handreid.files import format_bytes

if TYPE_CHECKING:
    from handreid.workflows.doctor import Checked


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="Built-in name or YAML file; by default a tiny recipe with prompts.")
    ] = None,
    data: Data = None,
    check: LongChecks = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Print the environment and run all checks of a recipe; nothing is trained or written.

    Checks run on a few photos of the manifest, or on rendered hands. Exits with 1 if a check fails.
    """
    from handreid.errors import RecipeError
    from handreid.recipe import load_recipe

    if set_ and not recipe:
        raise RecipeError(f"--set {set_[0]} changes a recipe, but no recipe is given")
    loaded = load_recipe(recipe, set_ or ()) if recipe else None
    early.manifests([data])
    progress = begin()
    from handreid.runs.environment import survey
    from handreid.runs.folder import Run
    from handreid.runs.pretrained_weights import check_weights
    from handreid.workflows.doctor import diagnose

    environment = survey(Path.cwd())
    if not json:
        _print_environment(environment)
    # a run's recipe may come from elsewhere
    if loaded and recipe and (Path(recipe).parent / "run.json").is_file():
        check_weights(Run(Path(recipe).parent), loaded)
    with resumable("the same command"):
        results = diagnose(loaded, data, long_checks=[name.value for name in check or ()], progress=progress)
    passed = all(result.passed for stage in results for result in stage.checks)
    if json:
        output.as_json({"environment": environment, "passed": passed, "checks": [_content(stage) for stage in results]})
    else:
        _print_checks(results)
    raise typer.Exit(0 if passed else 1)


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def _print_environment(environment: dict[str, Any]) -> None:
    devices, memory = environment["devices"], environment["memory"]
    packages = [f"{name} {value}" for name, value in environment["versions"].items() if value]
    extras = [f"{name} {value}" for name, value in environment["extras"].items() if value]
    absent = [name for name, value in environment["extras"].items() if not value]
    gpus = [f"{gpu['name']}, {format_bytes(gpu['bytes'])}{_bf16(gpu)}" for gpu in devices["gpus"]]
    caches = [
        f"{cache['what']} {format_bytes(cache['bytes'])} in {cache['folder']}"
        for cache in environment["caches"]
        if cache["bytes"]
    ]
    ram = [f"{name} {format_bytes(value)}" for name, value in memory.items() if value]
    rows = [
        ("python", f"{environment['python']} on {environment['platform']}"),
        ("versions", ", ".join(packages)),
        ("extras", ", ".join(extras) + (f"; not installed: {', '.join(absent)}" if absent else "")),
        ("CPU", f"{devices['cpu']}, {devices['cores']} cores, {devices['threads']} threads{_bf16(devices)}"),
        ("GPU", "; ".join(gpus) or "none"),
        ("memory", ", ".join(ram) or "unknown"),
        (
            "free disk",
            ", ".join(
                f"{name} {format_bytes(free)}" for name, free in environment["disks"].items() if free is not None
            ),
        ),
        ("caches", "; ".join(caches) or "empty"),
    ]
    output.table("environment", ("", ""), rows, left=2, fold=("; ",))
    for warning in environment["warnings"]:
        output.echo(f"warning: {warning}")


def _print_checks(results: list["Checked"]) -> None:
    for stage in results:
        rows = [
            (check.name, "yes" if check.passed else "NO", check.found, f"{check.seconds:.2f}") for check in stage.checks
        ]
        output.table(stage.where, ("check", "passed", "found", "s"), rows, left=3)
    checks = [check for stage in results for check in stage.checks]
    failed = [check.name for check in checks if not check.passed]
    seconds = sum(check.seconds for check in checks)
    summary = (
        f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        if failed
        else f"{len(checks)} checks passed"
    )
    output.echo(f"{summary}, {seconds:.1f} s")


def _content(stage: "Checked") -> dict[str, Any]:
    from dataclasses import asdict

    return {"where": stage.where, "checks": [asdict(check) for check in stage.checks]}


def _bf16(device: dict[str, Any]) -> str:
    return ", bf16" if device["bf16"] else ""
