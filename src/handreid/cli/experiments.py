"""`handreid recipes, train, evaluate, ladder, demo`."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handreid.cli import output
from handreid.progress import Progress, for_people

if TYPE_CHECKING:
    from handreid.recipe import Recipe
    from handreid.training.ladder import Rung

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
_SPACE = {
    "intra": ("within an identity", "mean distance to the other photos of the identity", "lower"),
    "inter": ("nearest other", "distance to the nearest photo of another identity", "higher"),
    "ratio": ("ratio", "the first by the second; under 1 is separable", "lower"),
    "fisher": ("Fisher ratio", "scatter between identities by scatter within; 1 is none between", "higher"),
    "silhouette": ("silhouette", "-1 to 1; at 0 the next identity is as near as the own", "higher"),
    "alignment": ("alignment", "mean squared distance in pairs of an identity", "lower"),
    "uniformity": ("uniformity", "how evenly the sphere is filled; 0 is collapsed", "lower"),
}
DEMO = {"identities": 240, "photos": 16, "size": 128, "seed": 0}


class Protocol(StrEnum):
    auto = "auto"
    hands11k = "hands11k"
    hd = "hd"
    disjoint = "disjoint"
    prepared = "prepared"


class Aspect(StrEnum):
    every = "all"
    dorsal_right = "dorsal-right"
    dorsal_left = "dorsal-left"
    palmar_right = "palmar-right"
    palmar_left = "palmar-left"


class Label(StrEnum):
    auto = "auto"
    subject = "subject"
    hand = "hand"
    aspect = "aspect"


Data = Annotated[Path | None, typer.Option("--data", help="Manifest of the photos.", metavar="MANIFEST")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Change the recipe: path.to.key=value.", metavar="KEY=VALUE")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def recipes(json: Json = False) -> None:
    """List the built-in recipes, each in a line."""
    from handreid.recipe import builtin_names, load_recipe

    found = {name: load_recipe(name) for name in builtin_names()}
    if json:
        output.as_json({name: recipe.model_dump(mode="json") for name, recipe in found.items()})
        return
    output.table("built-in recipes", ("name", "about"), [(n, r.about) for n, r in found.items()], left=2)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Built-in name or YAML file; not needed with --resume.")] = None,
    out: Out = Path("run"),
    data: Data = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    reuse: Annotated[
        bool,
        typer.Option(help="Take stages that a run beside this one has done, with the same recipe, photos and weights."),
    ] = True,
) -> None:
    """Train a recipe into a run folder. A run that is killed or stopped resumes to the same weights."""
    progress = begin()
    from handreid.errors import RecipeError
    from handreid.recipe import load_recipe
    from handreid.training.runs import Run
    from handreid.training.train import train as train_run

    if set_ and not recipe:
        raise RecipeError(f"--set {set_[0]} changes a recipe, but none is given; a run that is resumed keeps its own")
    before = Run(out).finished
    chosen = load_recipe(recipe, set_ or ()) if recipe else None
    with resumable(f"handreid train --resume --out {out}"):
        run = train_run(chosen, data, out, resume=resume, reuse=reuse, progress=progress)
    typer.echo(f"{run.model} {'was' if before else 'is'} ready; next: handreid evaluate {out}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Data = None,
    protocol: Annotated[Protocol | None, typer.Option(help="Another protocol than the recipe's.")] = None,
    aspect: Annotated[Aspect | None, typer.Option(help="Search with photos of this view only.")] = None,
    label: Annotated[Label | None, typer.Option(help="What an identity is.")] = None,
    mirrored: Annotated[
        bool | None, typer.Option(help="Add the mirrored photo's feature (flip test-time augmentation).")
    ] = None,
    rerank: Annotated[
        list[str] | None,
        typer.Option(
            help="Rank anew as well: k1=20,k2=6,lambda=0.3 by k-reciprocal neighbours, expansion=5 by average query "
            "expansion; may be given again.",
            metavar="HOW",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Score a run on test identities: rank-k, both mAPs, MRR, mINP, with intervals, per aspect and pooled."""
    progress = begin()
    from handreid.recipe import read_rerank
    from handreid.training.assess import evaluate as evaluate_run
    from handreid.training.runs import open_run

    asked = {"protocol": protocol, "aspect": aspect, "label": label}
    changes = {name: choice.value for name, choice in asked.items() if choice}
    ways = list(dict.fromkeys(map(read_rerank, rerank))) if rerank else None
    with resumable(f"handreid evaluate {run}"):
        path, found = evaluate_run(
            open_run(run), data=data, changes=changes, mirrored=mirrored, rerank=ways, progress=progress
        )
    if json:
        output.as_json(found)
        return
    _print_evaluation(found)
    typer.echo(f"written to {path}")


def ladder(
    out: Out = Path("ladder"),
    data: Data = None,
    rungs: Annotated[
        list[str] | None,
        typer.Option("--rungs", help="Recipes, by name or file: separated by commas, or once per rung."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Another tower for all rungs: a name of open_clip, handreid-tiny, or a YAML file of model keys."
        ),
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Train and evaluate rung after rung, and say for each whether it beats the one below."""
    default = TINY_LADDER if backbone == "handreid-tiny" else LADDER
    if backbone and default is LADDER:  # the same tower for all: one recipe of CLIP-ReID is enough
        default = tuple(name for name in LADDER if name != "clip-reid-rn50")
    names = [name for given in rungs or default for name in given.split(",")]
    _climb([_rung(name, backbone, set_ or ()) for name in names], data, out, json=json)


def demo(
    out: Out = Path("demo"),
    identities: Annotated[int, typer.Option(help="People to draw.", min=12)] = DEMO["identities"],
    photos: Annotated[int, typer.Option(help="Photos of each person, over four aspects.", min=8)] = DEMO["photos"],
    set_: Set = None,
) -> None:
    """The ladder on hands that are drawn on the spot, with a tower small enough for two cores."""
    from handreid.data import sources
    from handreid.data.rendered import render

    progress = for_people()
    hands = out / f"hands-{identities}-{photos}"
    with (
        resumable(f"handreid demo --out {out}"),
        progress.step("drawing hands", identities * photos, "photos") as advance,
    ):
        table = render(
            hands, identities=identities, photos=photos, seed=DEMO["seed"], size=DEMO["size"], progress=advance
        )
    manifest = hands / "manifest.parquet"
    sources.csv(table).write(manifest)
    _climb([_rung(name, None, set_ or ()) for name in TINY_LADDER[:2]], manifest, out / "ladder", json=False)


def add_to(app: typer.Typer) -> None:
    for command in (recipes, train, evaluate, ladder, demo):
        app.command()(command)


def begin() -> Progress:
    """Tells a person who waits why: torch and Lightning take seconds to import."""
    progress = for_people()
    if sys.stderr.isatty():
        progress.say("loading torch ...")
    return progress


def _rung(name: str, backbone: str | None, overrides: Sequence[str]) -> "Recipe":
    from handreid.recipe import load_recipe

    untrained = not load_recipe(name).stages
    fitting = [override for override in overrides if not (untrained and override.startswith("stages."))]
    return load_recipe(name, [*_backbone_overrides(backbone), *fitting])


def _backbone_overrides(backbone: str | None) -> list[str]:
    """A tower for all rungs as --set would say it: by name, or every key of a YAML file below `model`."""
    import yaml

    from handreid.errors import RecipeError

    if backbone is None:
        return []
    path = Path(backbone)
    if path.suffix not in (".yaml", ".yml"):
        weights = (
            ["model.backbone.weights=none", "model.backbone.image_size=null"] if backbone == "handreid-tiny" else []
        )
        return [f"model.backbone.name={backbone}", *weights]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"--backbone {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"--backbone {path} holds no keys; write it like the `model:` part of a recipe")
    return [
        f"model.{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6)}" for key, value in content.items()
    ]


def _climb(recipes: Sequence["Recipe"], data: Path | None, out: Path, *, json: bool) -> None:
    progress = begin()
    from handreid.training.ladder import climb

    with resumable("the same command"):
        rungs = climb(recipes, data, out, progress=progress)
    if json:
        output.as_json(
            {"rungs": [{"name": rung.name, "evaluation": rung.evaluation, "below": rung.below} for rung in rungs]}
        )
        return
    _print_ladder(rungs, out)


def _print_ladder(rungs: "Sequence[Rung]", out: Path) -> None:
    from handreid.training import ladder as of

    for rung in rungs:
        if rung.evaluation.get("prompts"):
            _print_prompts(rung.name, rung.evaluation["prompts"])
    output.table("the ladder", of.COLUMNS, [row for rung in rungs for row in of.rows(rung)])
    for line in (of.caption(rungs[-1]), *of.reranked_captions(rungs)):
        typer.echo(line)
    if any("space" in rung.evaluation for rung in rungs):
        # in two lines a cell, or there are nine columns of twenty signs
        rows = [[cell.replace(" [", "\n[") for cell in of.space_cells(rung)] for rung in rungs]
        output.table("the space", of.SPACE_COLUMNS, rows)
        typer.echo(next(filter(None, map(of.space_caption, reversed(rungs)))))
    typer.echo(f"written to {out / 'ladder.md'} and {out / 'ladder.json'}")


def _print_evaluation(found: dict[str, Any]) -> None:
    from handreid.training.ladder import Rung, caption, percent

    shown = {"rank-1": "rank1", "rank-5": "rank5", "rank-10": "rank10", "mAP": "map", "mAP trapezoid": "map_trapezoid"}
    shown |= {"MRR": "mrr", "mINP": "minp"}
    parts = {"all": found, **found["aspects"]} if len(found["aspects"]) > 1 else {"all": found}
    rows = [[name, *(percent(part["metrics"][key]) for key in shown.values())] for name, part in parts.items()]
    output.table(found["recipe"], ("queries", *shown), rows)
    typer.echo(caption(Rung(found["recipe"], found, None)))
    _print_reranked(found)
    _print_space(found)
    if found.get("prompts"):
        _print_prompts(found["recipe"], found["prompts"])
    if found.get("inference"):
        _print_modes(found["inference"])


def _print_modes(modes: dict[str, Any]) -> None:
    from handreid.training.ladder import percent

    rows = [
        (
            f"{name}{' (the recipe)' if name == modes['chosen'] else ''}",
            *(percent(modes[name]["metrics"][key]) for key in ("rank1", "map")),
            f"{modes[name]['cost']['milliseconds_per_photo']:.2f}",
            f"{modes[name]['cost']['parameters'] / 1e6:.1f} M",
        )
        for name in ("composed", "fixed")
    ]
    output.table(
        "a sentence for every photo, or one for all", ("inference", "rank-1", "mAP", "ms a photo", "parameters"), rows
    )
    found = modes["difference"]
    for name, key in (("rank-1", "rank1"), ("mAP", "map")):
        one = found[key]
        low, value, high = (f"{100 * one[k]:+.1f}" for k in ("low", "value", "high"))
        typer.echo(f"composed against fixed, {name}: {one['verdict']} {value} [{low}, {high}]")


def _print_reranked(found: dict[str, Any]) -> None:
    from handreid.training.ladder import against, cells
    from handreid.training.reranked import remark

    if not found.get("reranked"):
        return
    rows = [["as it is", *cells(found["metrics"]), "", ""]]
    for of in found["reranked"]:
        gained = of["against"]
        rows.append([of["name"], *cells(of["metrics"]), against(gained["rank1"]), against(gained["map"])])
    columns = ("ranking", "rank-1", "rank-5", "mAP", "mAP trapezoid", "mINP", "rank-1 gained", "mAP gained")
    output.table("ranked anew", columns, rows)
    if remark(found):
        typer.echo(f"note: {remark(found)}")


def _print_space(found: dict[str, Any]) -> None:
    from handreid.training.ladder import Rung, number, space_caption

    numbers = found["space"]["numbers"]
    rows = [(name, about, better, number(numbers[key]) or "-") for key, (name, about, better) in _SPACE.items()]
    output.table("the space", ("number", "what it is", "better", "value"), rows, left=3)
    reasons = {of["why"] for of in numbers.values() if "why" in of}
    for reason in sorted(reasons):
        typer.echo(f"note: {reason}")
    typer.echo(space_caption(Rung(found["recipe"], found, None)))


def _print_prompts(name: str, prompts: Sequence[dict[str, Any]]) -> None:
    from handreid.training.ladder import percent

    rows = [
        (
            entry["template"] or "all of them, averaged",
            *(percent(entry["accuracy"][k]) for k in ("view", "aspect", "side")),
        )
        for entry in prompts
    ]
    columns = ("prompt", "view (chance 25)", "dorsal or palmar (50)", "left or right (50)")
    output.table(f"{name}: what do words see? accuracy on {prompts[0]['photos']} test photos", columns, rows)


@contextlib.contextmanager
def resumable(command: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with: {command}", err=True)
        raise typer.Exit(130) from None
