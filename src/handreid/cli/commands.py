"""All commands: typer, with everything heavy imported inside the command that needs it."""

import typer

from handreid import __version__
from handreid.cli import (
    attention,
    compare,
    curves,
    data,
    doctor,
    experiments,
    ladders,
    matrix,
    output,
    prompts,
    report,
    space,
    strip,
    sweeps,
    track,
)
from handreid.cli.ending import Group

app = typer.Typer(
    cls=Group,
    help="Recognise a person from a photo of a hand: a measured ladder of CLIP fine-tuning strategies.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
experiments.add_to(app)
ladders.add_to(app)
space.add_to(app)
report.add_to(app)
curves.add_to(space.figures)
compare.add_to(app)
strip.add_to(space.figures)
matrix.add_to(space.figures)
attention.add_to(space.figures)
track.add_to(app)
doctor.add_to(app)
sweeps.add_to(app)
app.add_typer(prompts.app, name="prompts")


def _version(wanted: bool) -> bool:
    if wanted:
        output.echo(f"handreid {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass
