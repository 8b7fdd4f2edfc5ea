"""`handreid figure`: figures of runs."""

import typer

from handreid.cli.figures import curves, embedding, matrix, saliency, strip


def add_to(app: typer.Typer) -> None:
    figures = typer.Typer(help="Draw figures of runs.", no_args_is_help=True)
    for module in (embedding, curves, strip, matrix, saliency):
        module.add_to(figures)
    app.add_typer(figures, name="figure")
