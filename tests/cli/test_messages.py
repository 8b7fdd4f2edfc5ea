"""What is said to people: nothing of it acts on a terminal, a spreadsheet or a page, and lists stay short."""

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from handreid import messages
from handreid.cli import output
from handreid.data import manifest
from handreid.evaluation.tables.format import markdown_table
from handreid.files import write_json
from handreid.progress import Terminal
from handreid.recipe import parse_recipe
from handreid.report.compare import tables
from handreid.report.compare.runs import compare_runs
from handreid.report.figures import style
from handreid.report.page.write import write_report
from handreid.training.train import train
from tests.cli.test_commands import handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import edit_recipe
from tests.plain_results import evaluated

ODD = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\u2066\u2028\r\n\tError: \udcffend\x7f"
SCRIPT = "<script>alert(1)</script>"
FORMULAS = ["=1+1", "+1-x", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1+1"]


def test_a_line_shows_what_would_act_and_leaves_letters_alone():
    assert messages.line("caf\u00e9 \u624b, 1 \u2264 2 \u2192 x") == "caf\u00e9 \u624b, 1 \u2264 2 \u2192 x"
    shown = messages.line(ODD)
    assert shown.isprintable()
    assert shown.startswith("\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202etxt\\u2066\\u2028\\r\\n\\tError: \\xffend\\x7f")
    shown.encode("utf-8")


def test_no_line_of_a_message_can_pose_as_another_message():
    assert messages.lines("a\nb\n\n  c\r\x1b") == "a\n  b\n\n  c\\r\\x1b"


def test_json_reads_back_to_the_same():
    content = {"name": ODD.replace("\udcff", ""), "list": [1.5, None], "caf\u00e9": True}
    text = messages.json_text(content)
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == content
    assert "caf\u00e9" in text


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_run_is_made_harmless(text: str):
    assert messages.csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.6, 3, None, True, "-1.6", "+3", "-1e-05", "1.", ".5", "a=b", "a-b", "", "anna"])
def test_numbers_and_other_text_stay_as_they_are(value: object):
    assert messages.csv_cell(value) == value


def test_markdown_holds_no_html_no_link_and_no_other_cells():
    cell = f"a|b {SCRIPT} ![x](http://somewhere.invalid/y.png) 3 [1, 2]\nnext"
    (_, _, row) = markdown_table(["c"], [[cell]], [True])
    assert row.count("|") - row.count("\\|") == 2
    assert "<" not in row
    assert "](" not in row
    assert "3 [1, 2]\\nnext" in row


def test_few_names_are_listed_and_of_many_the_nearest():
    assert messages.known("b", ["a", "bb"], "there") == "known are a, bb; did you mean 'bb'?"
    many = [f"name-{number}" for number in range(40)]
    assert messages.known("nam-3", many, "there").startswith("did you mean 'name-3' or ")
    assert messages.known("nam-3", many, "there").endswith("? All 40 are listed there")
    assert messages.known("x" * 9000, many, "there") == "All 40 are listed there"
    assert messages.listed(many, 2) == "name-0, name-1 and 38 more"
    assert messages.shown("x" * 100, 10) == "'xxxxxxxxx ... (92 more characters)"
    assert messages.shown(10**5000) == "a number of thousands of digits"


def printed(what: object, *arguments: object, **named: object) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        what(*arguments, **named)  # type: ignore[operator]
    return out.getvalue() + err.getvalue()


def test_whatever_prints_prints_it_so():
    markup = f"{ODD}[red]a[/b]:smile:"
    said = [
        printed(output.echo, markup),
        printed(output.page, f"{markup}\n"),
        printed(output.as_json, {markup: markup}),
        printed(output.table, markup, [markup, "number"], [[markup, "1 [0, 2]"]], fold=(" [",)),
        printed(lambda: Terminal().say(markup)),
    ]
    for text in said:
        assert text.replace("\n", "").isprintable(), ascii(text)
        assert "[red]a[/b]:smile:" in text.replace("\n", "")
    table = said[3].splitlines()
    assert [line.strip() for line in table[-3:]][1:] == ["[0, 2]", ""] or table[-2].strip() == "[0, 2]"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_too(monkeypatch: pytest.MonkeyPatch):
    screen = _Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal().step("drawing \x1b]0;owned\x07 [/b]", 2, "photos") as advance:
        advance(2)
    assert "\x1b]0;owned" not in screen.getvalue()
    assert "drawing \\x1b]0;owned\\x07 [/b]" in screen.getvalue()


@pytest.fixture(scope="module")
def odd(hard_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run on people of strange names, whose evaluation.json somebody has been at."""
    folder = tmp_path_factory.mktemp("odd")
    made = manifest.read(hard_photos)
    named = pl.col("subject").replace({"p00": SCRIPT, "p01": "=1+1", "p02": "$\\frac$", "p03": "a|b[/x]"})
    replace(made, table=made.table.with_columns(named)).write(folder / "odd.parquet")
    recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages=[]", "about='=1+1'"])
    run = train(recipe, folder / "odd.parquet", folder / "run")
    path, found = evaluated(run)
    found["protocol"]["name"] = f"{SCRIPT}{ODD}|".replace("\udcff", "")
    write_json(path, found)
    return run.folder


def test_a_report_shows_names_and_runs_none(odd: Path, tmp_path: Path):
    text = write_report([odd], tmp_path / "r.html").read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


@pytest.mark.parametrize("kind", ["terminal", "markdown", "csv", "json"])
def test_a_comparison_of_runs_of_others_acts_on_nothing(odd: Path, kind: str, tmp_path: Path):
    for name, about in (("=HYPERLINK(1)", "left"), ("b", "right")):
        shutil.copytree(odd, tmp_path / name)
        edit_recipe(tmp_path / name, "normalise: clip", f"normalise: {'half' if about == 'left' else 'clip'}")
    called = handreid("compare", tmp_path / "=HYPERLINK(1)", tmp_path / "b", "--format", kind)
    assert called.code == 0, called.err
    assert called.out.replace("\n", "").isprintable()
    if kind == "json":
        json.loads(called.out)
    if kind == "markdown":
        assert "<script" not in called.out
    if kind == "csv":
        assert not [cell for row in csv.reader(io.StringIO(called.out)) for cell in row if cell[:1] in ("=", "@")]


def test_what_a_comparison_writes_as_csv_is_harmless(odd: Path):
    found = compare_runs([odd])
    found.runs[0].changed["about"] = "=1+1"
    found.runs[0].changed["lr"] = "-1.6"
    (row,) = csv.DictReader(io.StringIO(tables.csv(found)))
    assert (row["recipe.about"], row["recipe.lr"]) == ("'=1+1", "-1.6")


@pytest.mark.parametrize("command", [("data", "describe"), ("data", "check", "--no-pixels"), ("evaluate",)])
def test_names_of_people_act_on_no_terminal(odd: Path, command: Sequence[str], tmp_path: Path):
    table = manifest.read(odd.parent / "odd.parquet").table
    named = pl.col("subject").replace({SCRIPT: "\x1b[2Janna\u202e"})
    lamp = pl.lit("\x9b31mred\x07").alias("lamp")
    root = manifest.read(odd.parent / "odd.parquet").root
    manifest.Manifest(table.with_columns(named, lamp), root, notes=(ODD.replace("\udcff", ""),)).write(
        tmp_path / "m.parquet"
    )
    if command == ("evaluate",):
        run = shutil.copytree(odd, tmp_path / "run")
        called = handreid("evaluate", run, "--data", tmp_path / "m.parquet")
    else:
        called = handreid(*command[:2], tmp_path / "m.parquet", *command[2:])
    assert "Traceback" not in called.err
    for said in (called.out, called.err):
        assert said.replace("\n", "").isprintable()


def test_a_figure_takes_no_name_for_a_formula(tmp_path: Path):
    figure = style.new_figure("$\\frac$ \x1b[2J", ["a $ b $ c_$"])
    written = style.save(figure, tmp_path / "f.svg", "of $\\frac$ \x1b[2J")
    style.as_png(figure)
    text = written[0].read_text()
    assert "a $ b $ c_$" in text
    assert "\x1b" not in text + written[1].read_text()
