"""Seeing the space: the table of embeddings and the figures, from the command line and in parts."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data.manifest import Manifest, read
from handreid.errors import DataError
from handreid.evaluation import embed
from handreid.evaluation.embed import read_facts
from handreid.evaluation.evaluate import evaluate
from handreid.files import read_json, write_atomic
from handreid.models.embedder import Embedder
from handreid.recipe import parse_recipe
from handreid.report.figures import style
from handreid.report.figures.embedding_map import project
from handreid.report.figures.scatter import Cloud, beside, draw_html, draw_picture, spread_colours
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import edit

VIEWS = [("dorsal", "right"), ("palmar", "left")]


@pytest.fixture(scope="module")
def known(photos: Path) -> Path:
    """The same photos with views, an own `role` column, skin of most, and an age of each subject."""
    plain = read(photos)
    number = pl.int_range(pl.len())
    table = plain.table.with_columns(
        aspect=pl.when(number % 2 == 0).then(pl.lit("dorsal")).otherwise(pl.lit("palmar")),
        side=pl.lit("right"),
        skin_color=pl.when(number % 4 == 3).then(None).when(number < 24).then(pl.lit("dark")).otherwise(pl.lit("fair")),
        role=pl.lit("theirs"),
        age=number // 4 + 20,
    )
    path = photos.parent / "known.parquet"
    Manifest(table, plain.root).write(path)
    return path


@pytest.fixture(scope="module")
def run(known: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("separation") / "run"
    evaluate(train(parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1"]), known, folder))
    return folder


class TestEmbed:
    def test_every_photo_is_a_row_with_role_identity_and_embedding(self, run: Path, known: Path, tmp_path: Path):
        out = tmp_path / "e.parquet"
        called = handreid("embed", run, "--out", out)
        assert called.code == 0, called.err
        table, manifest = pl.read_parquet(out), read(known)
        width = Embedder.load(run / "model.safetensors").dim
        assert table.schema["embedding"] == pl.Array(pl.Float32, width)
        assert np.linalg.norm(table["embedding"].to_numpy(), axis=1) == pytest.approx(np.ones(48), abs=1e-5)
        assert table["path"].to_list() == manifest.table["path"].to_list()
        assert table["manifest_role"].unique().to_list() == ["theirs"]
        assert table["identity"].to_list() == table["subject"].to_list()
        found = json.loads((run / "evaluation.json").read_text())
        assert set(table.filter(role="test")["path"]) == set(found["photos"])
        assert set(table["role"]) == {"train", "validation", "test"}
        assert called.out.startswith(f"{out}: 48 photos (20 test, ")
        facts = read_facts(out)
        assert (facts["manifest_hash"], facts["model_hash"]) == (manifest.hash, found["hashes"]["model"])
        assert (facts["dim"], facts["recipe"], facts["label"], facts["part"]) == (width, "micro", "subject", "all")
        assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]

    def test_embeddings_are_those_that_are_evaluated(self, run: Path, tmp_path: Path):
        """The space of evaluation.json can be had from the table."""
        out = tmp_path / "e.parquet"
        assert handreid("embed", run, "--out", out, "--split", "test").code == 0
        table = pl.read_parquet(out)
        points, names = table["embedding"].to_numpy().astype(float), table["identity"].to_numpy()
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        nearest = np.where(names[:, None] == names[None], np.inf, distance).min(axis=1).mean()
        found = json.loads((run / "evaluation.json").read_text())
        assert nearest == pytest.approx(found["separation"]["numbers"]["inter"]["value"], rel=1e-4)

    def test_a_part_and_mirrored(self, run: Path, tmp_path: Path):
        for name, words in (("a", ()), ("b", ("--flip-tta",))):
            assert (
                handreid("embed", run, "--out", tmp_path / f"{name}.parquet", "--split", "validation", *words).code == 0
            )
        plain, mirrored = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
        assert set(plain["role"]) == {"validation"}
        assert plain["path"].to_list() == mirrored["path"].to_list()
        assert not np.allclose(plain["embedding"].to_numpy(), mirrored["embedding"].to_numpy())
        assert read_facts(tmp_path / "b.parquet")["flip_tta"] is True

    def test_on_other_photos_nothing_was_trained_on(self, run: Path, photos: Path, tmp_path: Path):
        out = tmp_path / "e.parquet"
        assert handreid("embed", run, "--data", photos, "--out", out).code == 0
        assert set(pl.read_parquet(out)["role"]) == {"test", "unused"}
        few = tmp_path / "few.parquet"
        manifest = read(photos)
        replace(manifest, table=manifest.table[:1]).write(few)
        called = handreid("embed", run, "--data", few, "--out", out)
        assert "cannot be split" in called.err
        assert pl.read_parquet(out)["role"].to_list() == ["unused"]

    def test_what_is_wrong_is_said_in_a_line_before_any_work(self, run: Path, photos: Path, tmp_path: Path):
        assert "the suffix must be .parquet, not '.csv'" in complaint("embed", run, "--out", tmp_path / "e.csv")
        assert "does not exist; create it first" in complaint("embed", run, "--out", tmp_path / "no" / "e.parquet")
        assert "is not a run folder" in complaint("embed", tmp_path, "--out", tmp_path / "e.parquet")
        unfinished = shutil.copytree(run, tmp_path / "unfinished")
        (unfinished / "model.safetensors").unlink()
        assert "--resume" in complaint("embed", unfinished, "--out", tmp_path / "e.parquet")
        said = complaint("embed", run, "--data", photos, "--split", "train", "--out", tmp_path / "e.parquet")
        assert "has the role 'train'; the roles are test, unused" in said
        assert not list(tmp_path.glob("*.parquet"))
        (tmp_path / "x.parquet").write_bytes(b"half")
        with pytest.raises(DataError, match="cannot be read"):
            read_facts(tmp_path / "x.parquet")
        with pytest.raises(DataError, match="no embeddings that handreid wrote"):
            read_facts(photos)

    def test_a_manifest_that_changed_is_noticed(self, run: Path, known: Path, tmp_path: Path):
        moved = shutil.copytree(run, tmp_path / "run")
        edit(moved / "run.json", manifest_hash="0" * 64)
        assert "give it as new data with --data" in complaint("embed", moved, "--out", tmp_path / "e.parquet")

    def test_ctrl_c_leaves_nothing_and_says_a_line(self, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("handreid.evaluation.embed.embed_known", stopped)
        called = handreid("embed", run, "--out", tmp_path / "e.parquet")
        assert (called.code, called.err) == (130, "stopped; to continue: the same command\n")
        assert not list(tmp_path.iterdir())

    def test_a_file_is_whole_or_not_there(self, tmp_path: Path):
        def half(path: Path) -> None:
            path.write_text("half")
            raise KeyboardInterrupt

        (tmp_path / "a.png").write_text("old")
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "a.png", half)
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.png", "old")]


@pytest.fixture
def ready(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, with embeddings made up: what is drawn does not hang on them."""

    def made_up(_: object, known: embed.PhotoTable, __: object = None) -> np.ndarray:
        points = np.random.default_rng(0).normal(size=(48, 6))[known.rows]
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr("handreid.report.figures.embedding_map.embed_known", made_up)
    return run


def shown(html: Path) -> dict:
    """Traces and layout that plotly.js is called with."""
    text = html.read_text()
    call = text[text.index("Plotly.newPlot(") :]
    decoder = json.JSONDecoder()
    traces, end = decoder.raw_decode(call, call.index("["))
    layout, _ = decoder.raw_decode(call, call.index("{", end))
    return {"traces": traces, "layout": layout, "text": text}


@pytest.mark.usefixtures("coarse_figures")
class TestFigure:
    @pytest.mark.parametrize("method", ["pca", "tsne"])
    def test_png_and_html_are_written_and_the_same_seed_gives_the_same(self, ready: Path, method: str, tmp_path: Path):
        words = ("figure", "embedding", ready, "--method", method, "--identities", 3)
        called = handreid(*words, "--out", tmp_path / "a.png")
        assert called.code == 0, called.err
        a = tmp_path / "a"
        assert called.out == f"written to {a}.png, {a}.txt and {a}.html\n"
        assert handreid(*words, "--out", tmp_path / "b.html").code == 0
        with Image.open(tmp_path / "a.png") as image:
            assert image.size == (550, 425)  # 11 x 8.5 inches
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"{name}.{kind}" for name in "ab" for kind in ("html", "png", "txt")
        ]

    @pytest.mark.parametrize("kind", ["svg", "pdf"])
    def test_papers_get_it_as_vectors_with_a_caption_as_text(self, ready: Path, kind: str, tmp_path: Path):
        words = ("figure", "embedding", ready, "--method", "pca", "--out", tmp_path / f"a.{kind}")
        assert handreid(*words).code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.html", f"a.{kind}", "a.txt"])
        assert (tmp_path / f"a.{kind}").read_bytes()[:5] in (b"<?xml", b"%PDF-")
        said = (tmp_path / "a.txt").read_text()
        assert "PCA, component 1" in said
        assert read_json(ready / "run.json")["manifest_hash"][:8] in said

    def test_the_html_needs_no_network_and_says_who_is_where(self, ready: Path, tmp_path: Path):
        assert handreid("figure", "embedding", ready, "--method", "pca", "--out", tmp_path / "a.html").code == 0
        found = shown(tmp_path / "a.html")
        assert not re.search(r"<script[^>]*\ssrc=|<link", found["text"])
        points = [trace for trace in found["traces"] if trace.get("hoverinfo") == "text"]
        manifest = read(Path(json.loads((ready / "run.json").read_text())["manifest"]))
        tested = set(json.loads((ready / "evaluation.json").read_text())["photos"])
        hovers = [hover for trace in points for hover in trace["text"]]
        expected = {
            f"<b>{subject}</b><br>{Path(path).name}<br>{aspect}-{side}"
            for path, subject, aspect, side in manifest.table.select("path", "subject", "aspect", "side").rows()
            if path in tested
        }
        assert sorted(hovers) == sorted(expected)
        assert {symbol for trace in points for symbol in trace["marker"]["symbol"]} == {"circle", "triangle-up"}
        title = found["layout"]["title"]["text"]
        evaluation = json.loads((ready / "evaluation.json").read_text())
        assert "20 photos of all 5 identities" in title
        assert f"rank-1 {100 * evaluation['metrics']['rank1']['value']:.1f}" in title
        assert f"nearest other {evaluation['separation']['numbers']['ratio']['value']:.3f}" in title
        assert "% of the variance" in found["layout"]["xaxis"]["title"]["text"]

    def test_numbers_of_another_model_or_other_photos_are_not_shown(self, ready: Path, photos: Path, tmp_path: Path):
        words = ("figure", "embedding", ready, "--method", "pca", "--out", tmp_path / "a.html")
        assert handreid(*words, "--data", photos).code == 0
        assert "rank-1" not in shown(tmp_path / "a.html")["layout"]["title"]["text"]

    def test_colours_by_a_column_show_all_and_what_is_unknown_in_grey(self, ready: Path, tmp_path: Path):
        words = ("figure", "embedding", ready, "--method", "pca", "--colour", "skin", "--identities", 2)
        assert handreid(*words, "--out", tmp_path / "a.png").code == 0
        traces = [trace for trace in shown(tmp_path / "a.html")["traces"] if trace.get("hoverinfo") == "text"]
        assert [trace["name"] for trace in traces] == ["fair", "dark", "unknown"]
        assert traces[2]["marker"]["color"] == style.UNKNOWN
        assert sum(len(trace["text"]) for trace in traces) == 20
        assert "skin_color: fair" in traces[0]["text"][0]

    @pytest.mark.parametrize("colour", ["subject", "view"])
    def test_other_colours(self, ready: Path, colour: str, tmp_path: Path):
        words = ("figure", "embedding", ready, "--method", "pca", "--colour", colour, "--out", tmp_path / "a.png")
        assert handreid(*words).code == 0
        names = [trace["name"] for trace in shown(tmp_path / "a.html")["traces"] if trace.get("hoverinfo") == "text"]
        assert names == ["dorsal-right", "palmar-right"] if colour == "view" else len(names) == 5

    def test_what_is_wrong_is_said_in_a_line(self, ready: Path, photos: Path, tmp_path: Path):
        words = ("figure", "embedding", ready, "--out", tmp_path / "a.png")
        said = complaint(*words, "--data", photos, "--colour", "skin")
        assert "has no column 'skin' to colour by; choose identity, subject or one of" in said
        said = complaint(*words, "--data", photos, "--colour", "view")
        assert "no test photo of" in said
        assert "has a value of view" in said
        assert "the suffix must be .png or .svg or .pdf or .html, not '.gif'" in complaint(
            *words[:3], "--out", tmp_path / "a.gif"
        )
        refused = handreid(*words, "--method", "umap")
        assert refused.code == 2
        assert not list(tmp_path.iterdir())

    def test_too_many_values_name_the_columns_with_few(
        self, ready: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setattr(style, "CATEGORIES", style.CATEGORIES[:4])
        said = complaint("figure", "embedding", ready, "--colour", "age", "--out", tmp_path / "a.png")
        assert "age has 5 different values, but only 4 colours" in said
        assert "skin_color" in said

    def test_help_loads_nothing_heavy(self):
        code = (
            "import sys, contextlib, io\nfrom handreid.cli import main\n"
            "for words in ('embed --help', 'figure --help', 'figure embedding --help'):\n"
            "    sys.argv = ['handreid', *words.split()]\n"
            "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
            "print({'torch', 'numpy', 'polars', 'matplotlib', 'plotly', 'sklearn'} & sys.modules.keys())\n"
        )
        assert (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
        )


class TestParts:
    def test_tight_groups_stay_together_in_the_plane(self):
        random = np.random.default_rng(0)
        group = np.repeat(np.arange(5), 8)
        points = np.eye(12)[group] + 0.02 * random.normal(size=(40, 12))
        for method in ("pca", "tsne"):
            plane, _ = project(points.astype(np.float32), method)
            assert plane.shape == (40, 2)
            centres = np.stack([plane[group == g].mean(axis=0) for g in range(5)])
            nearest = np.linalg.norm(plane[:, None] - centres[None], axis=2).argmin(axis=1)
            assert (nearest == group).all(), method

    @pytest.mark.parametrize("method", ["pca", "tsne"])
    def test_few_photos_and_a_collapsed_model(self, method: str):
        assert np.isfinite(project(np.eye(4, dtype=np.float32), method)[0]).all()
        with pytest.raises(DataError, match="collapsed"):
            project(np.ones((9, 4), np.float32), method)

    def test_groups_of_one_colour_are_far_apart(self):
        centres = np.random.default_rng(1).normal(size=(27, 2))
        colours = np.array(spread_colours(centres))
        assert len(set(colours)) == len(style.CATEGORIES)
        assert len(set(spread_colours(centres[:9]))) == 9
        distance = np.linalg.norm(centres[:, None] - centres[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        nearest = distance.argmin(axis=1)
        assert (colours != colours[nearest]).all()

    def test_badges_do_not_lie_on_each_other(self):
        places = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [100.0, 50.0], [104.0, 50.0]])
        moved = beside(places)
        apart = np.linalg.norm(moved[:, None] - moved[None], axis=2) + 99 * np.eye(5)
        assert apart.min() > 16
        assert np.linalg.norm(moved - places, axis=1).max() < 60

    def test_names_cannot_break_out_of_the_page(self, tmp_path: Path):
        cloud = Cloud(
            points=np.eye(4)[:, :2],
            groups=np.array([0, 0, 1, 1]),
            names=["</script><b>x", "b"],
            colours=["#000000", "#ffffff"],
            views=["unknown"] * 4,
            hovers=["h"] * 4,
            joined=True,
            title="</title>a < b",
            subtitle=["s"],
            legend="l",
            axes=("x", "y"),
            true_to_scale=True,
        )
        draw_html(cloud, tmp_path / "a.html")
        draw_picture(cloud, tmp_path / "a.png", "")
        text = (tmp_path / "a.html").read_text()
        assert "</script><b>x" not in text
        assert "<title></title>" not in text
