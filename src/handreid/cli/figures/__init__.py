"""`handreid figure`: figures of runs."""

import typer

from handreid.cli.figures import curves, embedding, landmarks, matrix, quality, saliency, strip


def add_to(app: typer.Typer) -> None:
    figures = typer.Typer(help="Draw figures of runs and of hands.", no_args_is_help=True)
    for module in (embedding, curves, strip, matrix, saliency, landmarks, quality):
        module.add_to(figures)
    app.add_typer(figures, name="figure")
