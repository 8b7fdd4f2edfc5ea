"""All commands. Heavy modules are imported inside the command that needs them."""

import typer

from handreid import __version__
from handreid.cli import (
    compare,
    data,
    doctor,
    embed,
    evaluate,
    export,
    figures,
    ladder,
    output,
    prompts,
    report,
    sweep,
    track,
    train,
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
train.add_to(app)
evaluate.add_to(app)
ladder.add_to(app)
embed.add_to(app)
figures.add_to(app)
report.add_to(app)
compare.add_to(app)
track.add_to(app)
doctor.add_to(app)
sweep.add_to(app)
app.add_typer(prompts.app, name="prompts")
app.add_typer(export.app, name="export")


def _version(show: bool) -> bool:
    if show:
        output.echo(f"handreid {__version__}")
        raise typer.Exit
    return show


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass
