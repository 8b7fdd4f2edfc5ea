"""`handreid ladder` and `handreid demo`: train and evaluate a ladder of recipes, print a table, write a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from handreid.cli import early, output, tables
from handreid.cli.options import Data, Json, Out, Set, Track, begin, resumable, trackers
from handreid.progress import Progress, default_progress

if TYPE_CHECKING:
    from handreid.evaluation.compare import Rung
    from handreid.recipe import Recipe, Tracker

STAGE_2 = ("triplet", "triplet-center", "triplet-center-arcface", "augmented")
STAGE_3 = ("promptsg", "promptsg-graph", "vpt-deep")
LADDER = (
    "zero-shot",
    "stage1-cross-entropy",
    *(f"stage2-{name}" for name in STAGE_2),
    "clip-reid-vit",
    "clip-reid-rn50",
    *STAGE_3,
)
TINY_LADDER = (
    "tiny-zero-shot",
    "tiny-cross-entropy",
    *(f"tiny-{name}" for name in (*STAGE_2, "clip-reid", *STAGE_3)),
    "tiny-resnet-cross-entropy",
    "tiny-clip-reid-resnet",
)
SMALL_LADDER = ("small-zero-shot", "small-cross-entropy", "small-triplet")  # from the embedded weights
# what --backbone may name beside open_clip's models: the backbone, and settings for it
_OWN_SIZE = ("image_size=null", "config=null")
OWN_BACKBONES = {
    "handreid-tiny": ("handreid-tiny", "weights=none", "image_size=null"),
    "handreid-small": ("handreid-small", "weights=none", *_OWN_SIZE),
    "handreid": ("handreid-small", "weights=handreid", *_OWN_SIZE),
}
DEMO = {"identities": 240, "photos": 16, "size": 128, "seed": 0}


def ladder(
    out: Out = Path("ladder"),
    data: Data = None,
    rungs: Annotated[
        list[str] | None,
        typer.Option("--rungs", help="Recipes, by name or file; repeat the option, or separate them by commas."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone of all rungs: a name of open_clip; handreid-tiny or handreid-small (random weights); "
            "handreid (handreid-small with the weights in this package); or a YAML file of model keys.",
            show_default=False,
        ),
    ] = None,
    set_: Set = None,
    seeds: Annotated[
        int,
        typer.Option(
            help="Training seeds of each rung: its own and those that follow. Rungs are compared over them.", min=1
        ),
    ] = 1,
    photos: Annotated[bool, typer.Option(help="Show photos in report.html.")] = True,
    track: Track = None,
    json: Json = False,
) -> None:
    """Train and evaluate recipes in order, compare each with the one before, and write a report."""
    default = {None: LADDER, "handreid-tiny": TINY_LADDER, "handreid-small": SMALL_LADDER, "handreid": SMALL_LADDER}
    # with one backbone for all rungs, the two CLIP-ReID recipes are the same
    other = tuple(name for name in LADDER if name != "clip-reid-rn50")
    names = [name for text in rungs or default.get(backbone, other) for name in text.split(",")]
    recipes = [_rung(name, backbone, set_ or ()) for name in names]
    backends = trackers(track)
    early.ladder(recipes, data, out, seeds)
    every = rungs is not None
    _run_and_report(recipes, data, out, json=json, seeds=seeds, every=every, photos=photos, track=backends)


def demo(
    out: Out = Path("demo"),
    identities: Annotated[int, typer.Option(help="Number of people to draw.", min=12)] = DEMO["identities"],
    photos: Annotated[int, typer.Option(help="Photos of each person, spread over the four views.", min=8)] = DEMO[
        "photos"
    ],
    weights: Annotated[
        Literal["handreid", "none"],
        typer.Option(help="Start from the weights in this package, or from random ones, which takes longer."),
    ] = "handreid",
    set_: Set = None,
    track: Track = None,
) -> None:
    """Run a small ladder on rendered hands; needs no photos, no network and no GPU."""
    from handreid.files import check_folder_writable

    backends = trackers(track)
    rungs = SMALL_LADDER if weights == "handreid" else TINY_LADDER[:2]
    recipes = [_rung(name, None, set_ or ()) for name in rungs]
    check_folder_writable(out)
    from handreid.data.rendered.prepared_folder import prepare_rendered

    hands = out / f"hands-{identities}-{photos}"
    size, seed = DEMO["size"], DEMO["seed"]
    with resumable("the same command"):
        manifest = prepare_rendered(
            hands, identities=identities, photos=photos, size=size, seed=seed, progress=default_progress()
        )
    ladder = out / ("ladder" if weights == "handreid" else "ladder-from-random-weights")
    _run_and_report(recipes, manifest, ladder, json=False, track=backends)


def add_to(app: typer.Typer) -> None:
    for command in (ladder, demo):
        app.command()(command)


def _rung(name: str, backbone: str | None, overrides: Sequence[str]) -> "Recipe":
    from handreid.recipe import load_recipe

    untrained = not load_recipe(name).stages
    fitting = [override for override in overrides if not (untrained and override.startswith("stages."))]
    return load_recipe(name, [*_backbone_overrides(backbone), *fitting])


def _backbone_overrides(backbone: str | None) -> list[str]:
    """Overrides, as for --set, that give all rungs one backbone: by name, or by the keys of a YAML file for `model`."""
    import yaml

    from handreid.errors import RecipeError
    from handreid.recipe.load import read_mapping

    if backbone is None:
        return []
    path = Path(backbone)
    if path.suffix not in (".yaml", ".yml"):
        name, *settings = OWN_BACKBONES.get(backbone, (backbone,))
        return [f"model.backbone.name={name}", *(f"model.backbone.{setting}" for setting in settings)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"--backbone {path} cannot be read: {error}") from None
    content, _ = read_mapping(
        text, f"--backbone {path}", "it holds no keys; write it like the `model:` part of a recipe"
    )
    return [
        f"model.{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}" for key, value in content.items()
    ]


def _run_and_report(
    recipes: Sequence["Recipe"],
    data: Path | None,
    out: Path,
    *,
    json: bool,
    seeds: int = 1,
    every: bool = True,
    photos: bool = True,
    track: "Sequence[Tracker] | None" = None,
) -> None:
    progress = begin()
    from handreid.workflows.ladder import run_ladder

    with resumable("the same command"):
        rungs = run_ladder(recipes, data, out, seeds=seeds, progress=progress, every=every, track=track)
        page = _report(out, photos, progress)
    if json:
        output.as_json({"rungs": [_as_json(rung) for rung in rungs]})
        return
    tables.print_ladder(rungs, out, page)


def _as_json(rung: "Rung") -> dict[str, Any]:
    gains = rung.below
    below = None if gains is None else {name: difference.model_dump(mode="json") for name, difference in gains.items()}
    return {"name": rung.name, "evaluation": rung.evaluation.model_dump(mode="json"), "below": below}


def _report(out: Path, photos: bool, progress: Progress) -> Path | None:
    """Writes the ladder's report. An error is only reported, as the ladder itself is finished."""
    from handreid.errors import HandreidError
    from handreid.report.page.write import write_report

    try:
        return write_report([out], out / "report.html", photos=photos, progress=progress)
    except HandreidError as error:
        progress.say(f"note: the report could not be written: {error}; write it with `handreid report {out}`")
        return None
