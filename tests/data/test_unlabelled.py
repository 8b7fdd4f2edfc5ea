"""Photos of nobody known: they may be said so, are in no part of any split, and nothing calls them right or wrong."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from handreid import inference
from handreid.data import sources
from handreid.data.check import check
from handreid.data.cross_condition import draw_all_subjects
from handreid.data.describe import describe
from handreid.data.manifest import Manifest, names_of, read
from handreid.data.splits import PROTOCOLS, make_split
from handreid.data.unlabelled import UNKNOWN, says_nothing
from handreid.data.validation import VALIDATIONS
from handreid.errors import ManifestError, ProtocolError
from handreid.evaluation.embed import embed
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.recipe import Recipe, parse_recipe
from handreid.report.figures import embedding_map as space_module
from handreid.report.figures import match_map as match_module
from handreid.report.figures import style
from handreid.report.figures.embedding_map import embedding_figure
from handreid.report.figures.match_map import match_figure
from handreid.report.figures.ranking_strip import write_strips
from handreid.report.figures.saliency_map import attention_figure
from handreid.report.figures.strip_selection import strip_of
from handreid.report.page.data_card import data_cards
from handreid.report.photos.lookup import LoadedPhotos
from handreid.report.photos.test_photos import load_test_photos
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.data.test_splits import like_hands11k, own_data, with_splits
from tests.plain_results import evaluated


def micro(*overrides: str) -> Recipe:
    return parse_recipe(
        MICRO_RECIPE, "micro", ["stages.0.epochs=1", "stages.0.optimizer.schedule={kind: constant}", *overrides]
    )


def without_names(manifest: Manifest, *paths: str) -> Manifest:
    nameless = pl.when(pl.col("path").is_in(paths)).then(None).otherwise(pl.col("subject")).alias("subject")
    return replace(manifest, table=manifest.table.with_columns(nameless))


@pytest.fixture(scope="module")
def tree(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 12 people, and a folder `unknown` with two photos of people who are tested and one who trains."""
    root = tmp_path_factory.mktemp("tree") / "photos"
    shutil.copytree(photos.parent, root, ignore=shutil.ignore_patterns("*.parquet"))
    (root / "unknown").mkdir()
    for number, person in enumerate(("p00", "p05", "p07")):
        shutil.move(root / person / "3.jpg", root / "unknown" / f"{number}.jpg")
    sources.folders(root).write(root.parent / "m.parquet")
    return root.parent / "m.parquet"


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = train(micro(), tree, tmp_path_factory.mktemp("runs") / "run")
    evaluate(made)
    return made


class TestTheyAreSaidSo:
    @pytest.mark.parametrize(
        "name", ["unknown", "UNKNOWN", "_unknown", "Unlabelled", "unlabeled", "(unidentified)", "?"]
    )
    def test_by_a_folder(self, tmp_path: Path, name: str):
        for path in ("anna/1.jpg", "anna/2.jpg", f"{name}/1.jpg", f"{name}/monday/2.jpg"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        manifest = sources.folders(tmp_path)
        assert manifest.table["subject"].drop_nulls().to_list() == ["anna", "anna"]
        assert "2 photos of 1 identities" in manifest.notes
        note = f"2 photos are without a subject (folder {name!r}): neither trained on nor tested"
        assert note in manifest.notes

    @pytest.mark.parametrize("name", ["unknown1", "anna-unknown", "un known", "known", "na", ""])
    def test_and_not_by_a_name_like_it(self, name: str):
        assert not says_nothing(name)

    def test_beside_splits_and_within(self, tmp_path: Path):
        for path in ("train/a/1.jpg", "query0/unknown/1.jpg", "gallery0/b/1.jpg", "unknown/9.jpg"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        rows = {row["path"]: row for row in sources.folders(tmp_path).table.rows(named=True)}
        assert [rows[path]["subject"] for path in ("query0/unknown/1.jpg", "unknown/9.jpg")] == [None, None]
        assert (rows["query0/unknown/1.jpg"]["split"], rows["unknown/9.jpg"]["split"]) == ("query", None)

    def test_by_a_cell(self, tmp_path: Path):
        (tmp_path / "hands.csv").write_text("path,subject\na.jpg,anna\nb.jpg,\nc.jpg, \nd.jpg,Unknown\n")
        manifest = read(tmp_path / "hands.csv")
        assert manifest.table["subject"].to_list() == ["anna", None, None, None]
        note = "3 photos are without a subject (subject 'Unknown', empty): neither trained on nor tested"
        assert note in manifest.notes

    @pytest.mark.parametrize("suffix", [".parquet", ".csv"])
    def test_and_it_stays_so(self, tmp_path: Path, suffix: str):
        manifest = without_names(own_data(), "a/0.jpg")
        manifest = replace(manifest, root=tmp_path)
        manifest.write(tmp_path / f"m{suffix}")
        again = read(tmp_path / f"m{suffix}")
        assert again.hash == manifest.hash != own_data().hash
        assert again.table["subject"].null_count() == 1


class TestLabels:
    def test_nobody_has_none_and_equals_nobody(self):
        manifest = without_names(like_hands11k(), *like_hands11k().table["path"][:2])
        for kind in manifest.label_kinds:
            assert manifest.labels(kind)[:3] == [None, None, like_hands11k().labels(kind)[2]]
            names = names_of(manifest, kind)
            assert names.count(names[0]) == names.count(names[1]) == 1

    def test_what_is_not_known_of_them_hinders_nobody(self):
        """A wild photo without side or aspect is no reason to give up the label `view` of the others."""
        path = like_hands11k().table["path"][0]
        table = without_names(like_hands11k(), path).table.with_columns(
            side=pl.when(pl.col("path") == path).then(None).otherwise(pl.col("side"))
        )
        manifest = Manifest(table, Path("/data"), "hands11k")
        assert manifest.label_kinds == ("subject", "hand", "view")
        assert manifest.labels("view")[0] is None
        with pytest.raises(ManifestError, match="no side, which the label 'hand' needs"):
            Manifest(table.with_columns(subject=pl.lit("7")), Path("/data")).labels("hand")


def with_everything(manifest: Manifest, per_split: int = 2) -> Manifest:
    """The manifest with photos of nobody known in every split that it has, or without one."""
    splits = manifest.table["split"].unique(maintain_order=True).to_list()
    draws = {name: manifest.table.filter(pl.col("split").eq_missing(name))["draw"][0] for name in splits}
    rows = [
        {"path": f"unknown/{name}-{n}.jpg", "split": name, "draw": draws[name]}
        for name in splits
        for n in range(per_split)
    ]
    extra = pl.DataFrame(rows, schema_overrides={"split": pl.String, "draw": pl.Int64})
    return replace(manifest, table=pl.concat([manifest.table, extra], how="diagonal").sort("path", descending=True))


SPLITS = {
    "hands11k": like_hands11k(),
    "disjoint": own_data(),
    "drawn": with_splits(train="abcdef", validation="gh", test="uvw", distractor="z"),
    "given": with_splits(train="abcdef", query="uvw", gallery="uvx", distractor="yz"),
}


class TestSplits:
    @pytest.mark.parametrize("validation", VALIDATIONS)
    @pytest.mark.parametrize("case", SPLITS)
    def test_it_is_that_of_the_others(self, case: str, validation: str):
        """No photo of nobody known trains, validates, is searched for or among: as if they were not there."""
        protocol = case if case in PROTOCOLS else "prepared"
        label = "view" if case == "hands11k" else "subject"
        options = {"protocol": protocol, "label": label, "validation": validation, "validation_share": 0.3}
        plain, manifest = SPLITS[case], with_everything(SPLITS[case])
        before, after = make_split(plain, **options), make_split(manifest, **options)  # type: ignore[arg-type]
        assert (after.hash, after.draws_hash) == (before.hash, before.draws_hash)
        draws = [part for draw in (*after.test, *after.validation) for part in (draw.gallery, draw.query)]
        for rows in (after.train, after.validation_rows, *draws):
            assert not any(after.paths[row].startswith("unknown/") for row in rows)
        added = len(manifest) - len(plain)
        assert re.match(f"{added} photos without a subject left out, as each may show anybody", after.notes[-1])

    def test_parts_that_they_were_given_are_counted(self):
        split = make_split(with_everything(SPLITS["given"]), protocol="prepared", label="subject")
        assert split.notes[-1].endswith("anybody, distractor 2, gallery 2, query 2, train 2 of them")

    def test_nobody_at_all(self):
        manifest = without_names(own_data(), *own_data().table["path"])
        with pytest.raises(ProtocolError, match=r"none of the 101 photos has a subject .*fill it in to train"):
            make_split(manifest, protocol="disjoint", label="subject")
        told = describe(manifest)
        assert (told["photos"], told["unlabelled"], told["subjects"]) == (101, 101, 0)
        assert "has a subject" in told["protocols"]["disjoint"]["pooled"]["error"]

    def test_everyone_of_another_data_set(self):
        manifest = with_everything(own_data())
        named = manifest.table["subject"].is_not_null().to_list()
        for draw in draw_all_subjects(manifest, "subject", None, seed=0, draws=2):
            assert all(named[row] for row in (*draw.gallery, *draw.query))

    def test_they_are_described(self):
        told = describe(with_everything(own_data()))
        assert (told["photos"], told["unlabelled"], told["subjects"]) == (103, 2, 21)
        assert told["photos_per_identity"]["subject"]["identities"] == 21


class TestCheck:
    def test_they_are_counted_and_no_single_photos(self, tree: Path):
        found = {finding.kind: finding for finding in check(tree)}
        assert found.keys() == {"unlabelled"}
        assert found["unlabelled"].severity == "warning"
        assert "3 photos without a subject, used neither for training nor for testing: unknown/0.jpg" in (
            found["unlabelled"].message
        )

    def test_on_both_sides_is_nobody(self):
        found = check(with_everything(with_splits(train="ab", test="cd")), pixels=False)
        assert [finding.kind for finding in found if finding.kind == "both-sides"] == []

    def test_the_same_picture_under_a_name_is_told(self, tree: Path, tmp_path: Path):
        shutil.copytree(tree.parent / "photos", tmp_path / "photos")
        shutil.copy(tmp_path / "photos/p01/0.jpg", tmp_path / "photos/unknown/again.jpg")
        shutil.copy(tmp_path / "photos/unknown/0.jpg", tmp_path / "photos/unknown/twice.jpg")
        found = [one for one in check(sources.folders(tmp_path / "photos")) if one.kind == "same-pixels"]
        assert [one.severity for one in found] == ["warning", "warning"]
        assert any("under subject p01 and under no subject: p01/0.jpg" in one.message for one in found)
        assert any("the same pixels twice without a subject" in one.message for one in found)


class TestARun:
    def test_they_have_no_identity_and_a_role_of_their_own(self, run: Run, tmp_path: Path):
        table = embed(run, tmp_path / "e.parquet")
        nobody = table.filter(pl.col("subject").is_null())
        assert nobody["identity"].to_list() == [None] * 3
        assert nobody["role"].to_list() == ["unlabelled"] * 3
        assert np.isfinite(np.stack(nobody["embedding"].to_list())).all()
        assert "unlabelled" not in table.filter(pl.col("subject").is_not_null())["role"].to_list()
        assert len(embed(run, tmp_path / "u.parquet", part="unlabelled")) == 3

    def test_kept_embeddings_are_used_beside_new_ones(self, run: Run, tmp_path: Path, monkeypatch):
        """The run keeps those of its test photos: only the others are embedded."""
        evaluate(run)
        counted: list[int] = []
        real = inference.embed_rows
        monkeypatch.setattr(inference, "embed_rows", lambda *a: counted.append(len(a[0])) or real(*a))
        load_test_photos(run, include=["unknown/0.jpg"])
        assert counted == [1]

    def test_evaluation_tests_none_of_them(self, run: Run):
        found = evaluated(run)[1]
        assert not any(name.startswith("unknown") for name in found["photos"])
        assert None not in found["subjects"]

    def test_a_data_set_of_which_nobody_is_known(self, run: Run, tree: Path, tmp_path: Path):
        wild = tmp_path / "wild.parquet"
        read(tree).filter(pl.col("subject").is_null()).write(wild)
        with pytest.raises(ProtocolError, match="none of the 3 photos has a subject"):
            evaluate(run, data=wild)
        with pytest.raises(ProtocolError, match="none of the 3 photos has a subject"):
            train(micro(), wild, tmp_path / "never")
        with pytest.raises(ProtocolError, match="everyone of folders: no test identity"):
            matrix_of(run, "dataset", data=[wild])
        table = embed(run, tmp_path / "wild-embedded.parquet", data=wild)
        assert (table["identity"].null_count(), set(table["role"])) == (3, {"unlabelled"})
        attention_figure(run, tmp_path / "a.png", photos=["unknown/1.jpg"], data=wild)

    def test_the_reports_card_counts_them(self, run: Run):
        class Named:
            name, folder, recipe = "run", run.folder, run.recipe

        (card,) = data_cards([Named()])
        assert dict(card["facts"])["photos"] == "48 of 12 people, 3 without a subject"
        assert any("3 photos without a subject left out" in note for note in card["leaks"])


def texts_of(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Of every figure that is saved from here on, all that is written on it."""
    seen: list[list[str]] = []
    real = style.save

    def save(figure: Figure, path: Path, caption: str = "") -> list[Path]:
        seen.append([text.get_text() for text in figure.findobj(Text)])
        return real(figure, path, caption)

    monkeypatch.setattr(style, "save", save)
    return seen


FALSE = re.compile("another identity|same identity|same person|rank [0-9]")


@pytest.mark.usefixtures("coarse_figures")
class TestFigures:
    def test_a_match_says_that_nobody_knows(self, run: Run, tmp_path: Path, monkeypatch):
        """It said "another identity", in bold, of a photo in a folder called unknown."""
        seen = texts_of(monkeypatch)
        for number, (query, other) in enumerate(
            [("unknown/1.jpg", None), ("unknown/1.jpg", "p05/1.jpg"), ("p05/1.jpg", "unknown/1.jpg")]
        ):
            out = tmp_path / f"{number}.svg"
            match_figure(run, out, query, other)
            told = out.with_suffix(".txt").read_text() + " ".join(seen[-1])
            assert UNKNOWN in told
            assert not FALSE.search(told)
        assert any("p05" in text for text in seen[1])

    def test_a_match_of_the_same_persons_other_hand_is_no_other_person(self):
        hands = ["p/left", "p/right"]
        shown = LoadedPhotos(torch.zeros(2), None, [], ["a", "b"], [*hands], ["p", "p"], ["test", "test"])
        assert match_module._relation(shown, 1, "hand") == "another hand of the same person"

    def test_a_strip_marks_nothing(self, run: Run, tmp_path: Path, monkeypatch):
        seen = texts_of(monkeypatch)
        write_strips(run, tmp_path / "s.svg", queries=["unknown/1.jpg"])
        assert "not known" in seen[-1]
        assert UNKNOWN in seen[-1]
        assert not [text for text in seen[-1] if FALSE.search(text)]
        assert "Query unknown/1.jpg: identity unknown" in (tmp_path / "s.txt").read_text()
        tested = load_test_photos(run, include=["1.jpg"])
        strip = strip_of(tested, "unknown/1.jpg")
        assert (strip.rank, strip.matches, strip.unlabelled) == (None, 0, True)
        assert {hit.right for hit in strip.hits} == {None}
        similarities = [hit.similarity for hit in strip.hits]
        assert similarities == sorted(similarities, reverse=True)

    def test_a_strip_of_others_is_as_before(self, run: Run):
        plain, beside = load_test_photos(run), load_test_photos(run, include=["unknown/0.jpg", "unknown/1.jpg"])
        name = plain.names[plain.query(0)[0]]
        one, other = strip_of(plain, name), strip_of(beside, name)
        assert [plain.names[hit.photo] for hit in one.hits] == [beside.names[hit.photo] for hit in other.hits]
        assert one.rank == other.rank
        assert {hit.right for hit in other.hits} == {True, False}

    def test_the_map_shows_them_apart(self, run: Run, tmp_path: Path, monkeypatch):
        clouds = []
        real = space_module.draw_picture
        monkeypatch.setattr(space_module, "draw_picture", lambda cloud, *a: clouds.append(cloud) or real(cloud, *a))
        embedding_figure(run, tmp_path / "e.png", photos=False)
        (cloud,) = clouds
        assert cloud.names[-1] == UNKNOWN
        assert (cloud.groups == len(cloud.names) - 1).sum() == 3
        assert len(cloud.centres) == len(cloud.names) - 1
        assert "hollow: 3 photos of unknown identity" in cloud.subtitle
        hovers = [cloud.hovers[at] for at in np.flatnonzero(cloud.groups == len(cloud.names) - 1)]
        assert all(hover.startswith(f"<b>{UNKNOWN}</b>") for hover in hovers)

    def test_attention_names_nobody(self, run: Run, tmp_path: Path, monkeypatch):
        seen = texts_of(monkeypatch)
        attention_figure(run, tmp_path / "a.svg", photos=["unknown/2.jpg"])
        assert "2.jpg\nidentity unknown" in seen[-1]


@pytest.mark.usefixtures("coarse_figures")
@pytest.mark.parametrize("command", ["strip", "match"])
def test_the_commands(run: Run, tmp_path: Path, command: str):
    out = tmp_path / "f.png"
    query = ["--query", "unknown/1.jpg"] if command == "strip" else ["unknown/1.jpg"]
    handreid("figure", command, run.folder, *query, "--out", out)
    assert out.exists()
    assert "no test photo" in complaint("figure", "strip", run.folder, "--query", "unknown/7.jpg", "--out", out)
