"""Across views, sides and data sets: cells whose numbers are known, who must not be in them, files and figure."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid import inference
from handreid.data.cross_condition import Cell, Crossing, cross_views, draw_all_subjects
from handreid.data.manifest import Manifest, read
from handreid.errors import DataError, ProtocolError, RunError
from handreid.evaluation import matrix
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of, read_matrices, written_matrix
from handreid.evaluation.matrix_cells import Embedded, difference_to_matched, pool_by_kind, score_cells
from handreid.evaluation.tables.matrix import remarks, stack_matrices
from handreid.files import read_json, write_json
from handreid.recipe import Recipe, parse_recipe
from handreid.report.figures.matrix import matrix_figure
from handreid.runs.exposure import RECORD
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.plain_results import crossed as crossed_by
from tests.plain_results import plain, typed_matrix

pytestmark = pytest.mark.usefixtures("coarse_figures")

VIEWS = [("dorsal", "right"), ("dorsal", "left"), ("palmar", "right"), ("palmar", "left")]
NAMES = [f"{aspect}-{side}" for aspect, side in VIEWS]
SHOTS = 3
PEOPLE = 6
ZERO = ("stages=[]", "model.head={kind: linear}", "model.test_feature.neck=before", "data.label=view", "name=zero")


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ("evaluate.draws=2", *overrides))


def table(people: int, shots: int = SHOTS) -> pl.DataFrame:
    """Photo by photo, person by person; a person's number is its name."""
    rows = [(who, aspect, side, shot) for who in range(people) for aspect, side in VIEWS for shot in range(shots)]
    return pl.DataFrame(
        {
            "path": [f"p{who:02d}-{aspect}-{side}-{shot}.png" for who, aspect, side, shot in rows],
            "subject": [f"{who:02d}" for who, *_ in rows],
            "aspect": [aspect for _, aspect, *_ in rows],
            "side": [side for _, _, side, _ in rows],
        }
    )


def made(people: int = 6, **columns: Any) -> Manifest:
    return Manifest(table(people).with_columns(**columns), Path(), "made")


def crossed(manifest: Manifest, by: str = "view", rows: np.ndarray | None = None, draws: int = 3) -> Crossing:
    return cross_views(manifest, np.arange(len(manifest)) if rows is None else rows, by, seed=0, draws=draws)


def at(cells: Any, gallery: str, probe: str, *, mirrored: bool = False) -> Any:
    """The one cell, of objects or of what was written."""
    read_of = (
        (lambda cell, name: getattr(cell, name)) if isinstance(cells[0], Cell) else (lambda cell, name: cell[name])
    )
    wanted = {"gallery": gallery, "query": probe, "mirrored": mirrored}
    (found,) = [cell for cell in cells if all(read_of(cell, name) == value for name, value in wanted.items())]
    return found


class TestCells:
    def test_kinds_say_how_the_probe_relates_to_the_gallery(self):
        cells = crossed(made()).cells
        kinds = {name: at(cells, "dorsal-right", name).kind for name in NAMES}
        assert kinds == {
            "dorsal-right": "same view",
            "dorsal-left": "other hand, same aspect",
            "palmar-right": "other aspect of the same hand",
            "palmar-left": "other hand, other aspect",
        }
        mirrored = {(cell.gallery, cell.query) for cell in cells if cell.mirrored}
        assert mirrored == {(a, b) for a in NAMES for b in NAMES if a.split("-")[1] != b.split("-")[1]}

    def test_a_gallery_has_one_photo_of_everyone_and_of_its_own_view_only(self):
        manifest = made()
        for cell in crossed(manifest).cells:
            for draw in cell.draws:
                enrolled = manifest.table[draw.gallery]
                merged = cell.gallery == "all views"
                assert len(enrolled) == len(set(enrolled["subject"])) * (4 if merged else 1) == (24 if merged else 6)
                assert {manifest.views[row] for row in draw.gallery} == (set(NAMES) if merged else {cell.gallery})
                probes = draw.query - (len(manifest) if cell.mirrored else 0)
                assert {manifest.views[row] for row in probes} == {cell.query}
                assert not set(probes) & set(draw.gallery)
                assert len(probes) == 6 * (SHOTS - (cell.gallery in (cell.query, "all views")))

    def test_one_photo_stands_for_a_hand_in_every_cell(self):
        cells = crossed(made()).cells
        merged = at(cells, "all views", "palmar-left")
        for draw, together in enumerate(merged.draws):
            apart = [row for name in NAMES for row in at(cells, name, "dorsal-right").draws[draw].gallery]
            assert sorted(apart) == sorted(together.gallery)

    def test_the_order_of_the_rows_changes_nothing(self):
        manifest = made()
        shuffled = replace(manifest, table=manifest.table.sample(fraction=1.0, shuffle=True, seed=4))
        for one, other in zip(crossed(manifest).cells, crossed(shuffled).cells, strict=True):
            for mine, theirs in zip(one.draws, other.draws, strict=True):
                for rows, others in ((mine.gallery, theirs.gallery), (mine.query, theirs.query)):
                    assert [manifest.table["path"][int(row) % 72] for row in rows] == [
                        shuffled.table["path"][int(row) % 72] for row in others
                    ]

    def test_draws_are_these_on_every_machine(self):
        """Written down, so that another version of Python or NumPy would be noticed."""
        draws = at(crossed(made()).cells, "dorsal-left", "palmar-right").draws
        expected = [[5, 17, 27, 40, 53, 64], [5, 17, 27, 40, 51, 65], [5, 15, 28, 39, 51, 65]]
        assert [draw.gallery.tolist() for draw in draws] == expected

    def test_sides_keep_aspects_apart(self):
        """The palm of the other hand is no right answer for a back, but it is in the gallery."""
        manifest = made()
        crossing = crossed(manifest, "side")
        cell = at(crossing.cells, "right", "left")
        assert (cell.kind, crossing.conditions) == ("other hand, same aspect", ("right", "left"))
        draw = cell.draws[0]
        assert len(draw.gallery) == 12
        right = [row for row in draw.gallery if cell.identities[row] == cell.identities[draw.query[0]]]
        assert [manifest.table["aspect"][int(row)] for row in (*right, draw.query[0])] == ["dorsal", "dorsal"]

    def test_sides_without_aspects_and_aspects_without_sides(self):
        sides = crossed(made(aspect=pl.lit(None, pl.String)), "side")
        assert {cell.kind for cell in sides.cells} == {"same hand", "other hand", "same hand, among both sides"}
        aspects = crossed(made(side=pl.lit(None, pl.String)))
        assert aspects.conditions == ("dorsal", "palmar")
        assert {cell.kind for cell in aspects.cells} == {"same view", "other aspect", "same view, among all views"}
        assert not any(cell.mirrored for cell in aspects.cells)

    def test_photos_of_which_less_is_known_are_left_out_and_counted(self):
        some = pl.when(pl.int_range(pl.len()) % 9 == 0).then(None).otherwise(pl.col("side"))
        crossing = crossed(made(side=some))
        assert (crossing.conditions, crossing.unknown, len(crossing.rows)) == (tuple(NAMES), 8, 64)

    def test_what_nobody_can_answer_is_blank_with_the_reason(self):
        manifest = made()
        halves = pl.col("subject").cast(int) < 3
        backs = manifest.filter(halves & (pl.col("aspect") == "dorsal") | ~halves & (pl.col("aspect") == "palmar"))
        cells = crossed(backs).cells
        assert at(cells, "palmar-right", "dorsal-right").blank == (
            "no test subject has photos of both palmar-right and dorsal-right"
        )
        assert at(cells, "dorsal-left", "dorsal-right").blank is None
        alone = crossed(manifest.filter(pl.col("path").str.ends_with("0.png"))).cells
        assert at(alone, "dorsal-left", "dorsal-left").blank == "no test subject has two photos of dorsal-left"

    def test_one_identity_in_a_gallery_tells_nothing(self):
        """Whoever is alone there is always found: 100 % whatever the model."""
        manifest = made()
        some = manifest.filter((pl.col("side") == "right") | (pl.col("subject") == "00"))
        cells = crossed(some).cells
        assert at(cells, "dorsal-left", "dorsal-left").blank == (
            "only one identity has photos of dorsal-left: rank-1 would be 100 % for any model"
        )
        assert at(cells, "dorsal-left", "dorsal-right").blank is not None
        assert at(cells, "dorsal-right", "dorsal-left").blank is None  # one is searched for, among six
        with pytest.raises(ProtocolError, match="gallery of the test holds one identity only"):
            draw_all_subjects(manifest.filter(pl.col("subject") == "00"), "subject", None, seed=0, draws=1)

    def test_what_cannot_be_crossed_is_refused(self):
        with pytest.raises(ProtocolError, match="all test photos of made show dorsal-right"):
            crossed(made().filter(pl.col("aspect") == "dorsal", pl.col("side") == "right"))
        with pytest.raises(ProtocolError, match="needs the aspect and side of photos"):
            crossed(made(aspect=pl.lit(None, pl.String)))

    def test_distractors_join_the_galleries_of_their_view(self):
        manifest = made(split=pl.when(pl.col("subject") == "05").then(pl.lit("distractor")))
        cell = at(crossed(manifest).cells, "palmar-right", "dorsal-right")
        assert len(cell.draws[0].gallery) == 5 + SHOTS
        assert "05" not in {manifest.table["subject"][int(row)] for row in cell.draws[0].query}

    def test_shared_cells_are_over_people_with_photos_of_each(self):
        manifest = made()
        fewer = manifest.filter(~((pl.col("subject") == "02") & (pl.col("aspect") == "palmar")))
        crossing = crossed(fewer)
        assert (crossing.identities, crossing.people) == (("00", "01", "03", "04", "05"), 6)
        people = [{fewer.table["subject"][int(row)] for row in cell.draws[0].gallery} for cell in crossing.shared]
        assert people == [{"00", "01", "03", "04", "05"}] * len(crossing.shared)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return made(PEOPLE)


@pytest.fixture(scope="module")
def photos(manifest: Manifest) -> Embedded:
    basis, found = np.eye(2 * PEOPLE, dtype=np.float32), []
    for turned in (False, True):
        for who, aspect, side in manifest.table.select("subject", "aspect", "side").iter_rows():
            as_left = (side == "left") != turned
            found.append(basis[(int(who) + as_left) % PEOPLE + (PEOPLE if aspect == "palmar" else 0)])
    rows = np.arange(2 * len(manifest))
    return Embedded(rows, np.stack(found), manifest.table["subject"].to_list())


@pytest.fixture(scope="module")
def crossing(manifest: Manifest) -> Crossing:
    return crossed(manifest)


@pytest.fixture(scope="module")
def numbers(photos: Embedded, crossing: Crossing) -> tuple[list[Any], list[Any]]:
    """Of each cell: what is written, and its scores."""
    entries, scored = score_cells(photos, crossing.cells, 200)
    return plain(entries), scored


class TestNumbers:
    """Embeddings made so that every cell is known.

    Hands of a person are mirror images: the right has its own direction, the left that of the next person's right, and
    mirrored it is the own. The palm is the back, turned away to where nobody is.
    """

    def test_every_cell_has_the_number_it_must_have(self, numbers: tuple[list[Any], list[Any]]):
        found, _ = numbers
        rank1 = {(cell["kind"], cell["mirrored"]): set() for cell in found}
        for cell in found:
            rank1[cell["kind"], cell["mirrored"]].add(cell["metrics"]["rank1"]["value"])
        assert rank1 == {
            ("same view", False): {1.0},
            ("other hand, same aspect", False): {0.0},  # the next person's hand is found
            ("other hand, same aspect", True): {1.0},
            ("other aspect of the same hand", False): {0.0},
            ("other hand, other aspect", False): {0.0},
            ("other hand, other aspect", True): {0.0},
            ("same view, among all views", False): {0.0},  # where the neighbour's other hand is as near
        }
        # at right angles to all, the right answer comes last of the gallery
        assert at(found, "dorsal-right", "palmar-right")["metrics"]["mrr"]["value"] == pytest.approx(1 / PEOPLE)

    def test_kinds_are_the_mean_over_all_their_queries(
        self, photos: Embedded, crossing: Crossing, numbers: tuple[list[Any], list[Any]]
    ):
        found, scored = numbers
        kinds = {(of["kind"], of["mirrored"]): of for of in plain(pool_by_kind(photos, crossing.cells, scored, 200))}
        mirrored = kinds["other hand, same aspect", True]
        assert (mirrored["cells"], mirrored["counts"]["queries"], mirrored["counts"]["subjects"]) == (4, 4 * 18, 6)
        assert mirrored["metrics"]["rank1"]["value"] == 1.0
        assert sum(of["cells"] for of in kinds.values()) == len(found)

    def test_people_are_the_unit_of_the_intervals(self, photos: Embedded, crossing: Crossing):
        """Of six people all right: the low end is the 2.5 % point of Beta(6, 1/2), however many photos they have."""
        (found,) = plain(score_cells(photos, [at(crossing.cells, "dorsal-right", "dorsal-right")], 4000)[0])
        bounds = found["metrics"]["rank1"]
        assert (bounds["value"], bounds["high"]) == (1.0, 1.0)
        assert 0.6 < bounds["low"] < 0.75

    def test_losses_are_paired_with_the_probes_own_kind(self, photos: Embedded, crossing: Crossing):
        cells = crossing.shared
        _, scored = score_cells(photos, cells, 200)
        of_cells, of_kinds = plain(difference_to_matched(photos, cells, scored, 200))
        named = {(c.gallery, c.query, c.mirrored): of for c, of in zip(cells, of_cells, strict=True)}
        assert named["dorsal-right", "dorsal-right", False] is None
        lost = named["dorsal-right", "dorsal-left", False]["rank1"]
        assert (lost["value"], lost["verdict"]) == (-1.0, "worse")
        assert named["dorsal-right", "dorsal-left", True]["rank1"]["value"] == 0.0
        assert [of and of["rank1"]["value"] for of in of_kinds] == [None, -1.0, 0.0, -1.0, -1.0, -1.0]


def picture(who: int, aspect: str) -> np.ndarray:
    """A right hand, 32 pixels: that of an odd person is that of the one before, mirrored; so is his left hand."""
    one = np.random.default_rng([who // 2, aspect == "palmar"]).integers(0, 255, (8, 8, 3), np.uint8)
    big = np.repeat(np.repeat(one, 4, axis=0), 4, axis=1)
    return big[:, ::-1] if who % 2 else big


def drawn(folder: Path, people: int, first: int = 0, dataset: str = "drawn", **columns: Any) -> Path:
    """A manifest of photos without loss; shots of a view differ in a pixel, left hands are right ones mirrored."""
    rows = table(people).with_columns(**columns)
    folder.mkdir(parents=True)
    for path, subject, aspect, side in rows.select("path", "subject", "aspect", "side").iter_rows():
        shown = picture(first + int(subject), aspect)
        shown = np.array(shown[:, ::-1] if side == "left" else shown)
        shown[0, 0] = list(crc32(f"{first} {path}".encode()).to_bytes(4))[:3]  # no two are one photo
        Image.fromarray(shown).save(folder / path)
    Manifest(rows, folder, dataset).write(folder / "manifest.parquet")
    return folder / "manifest.parquet"


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("hands") / "drawn", 10)


@pytest.fixture(scope="module")
def zero(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Nothing is trained, so whoever the protocol tests is a stranger."""
    run = train(micro(*ZERO, "data.test_share=0.6"), hands, tmp_path_factory.mktemp("zero") / "zero")
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def found(zero: Run) -> dict[str, Any]:
    return crossed_by(zero, "view")[1]


class TestARun:
    def test_mirrored_left_hands_are_found_among_right_ones(self, found: dict[str, Any]):
        """From the pixels on: each left hand is the right one mirrored."""
        for gallery, probe in (("dorsal-right", "dorsal-left"), ("palmar-left", "palmar-right")):
            assert at(found["cells"], gallery, probe, mirrored=True)["metrics"]["rank1"]["value"] == 1.0
            assert at(found["cells"], gallery, probe)["metrics"]["rank1"]["value"] < 1.0
            assert at(found["cells"], probe, probe)["metrics"]["rank1"]["value"] == 1.0

    def test_the_column_of_all_views_is_the_plain_evaluation(self, zero: Run, found: dict[str, Any]):
        """Trap 9: the gallery that published numbers are of, beside the smaller one of the cells."""
        plain = read_json(zero.evaluation)
        for name in NAMES:
            cell = at(found["cells"], "all views", name)
            assert cell["metrics"] == plain["views"][name]["metrics"]
            assert cell["counts"]["gallery"] == plain["counts"]["gallery"] == 24
            own = at(found["cells"], name, name)
            assert own["counts"]["gallery"] == 6
            assert own["metrics"]["map"]["value"] >= cell["metrics"]["map"]["value"]

    def test_the_file_says_what_it_rests_on(self, zero: Run, found: dict[str, Any]):
        assert found == read_json(zero.folder / "evaluation-matrix-view.json")
        assert (found["by"], found["left_out"], found["flip_tta"]) == ("view", [], False)
        assert set(found["hashes"]) == {"manifest", "draws", "model"}
        assert (found["trained_on"]["subjects"], found["trained_on"]["photos"]) == (0, 0)
        assert (found["tested_on"][0]["subjects"], found["tested_on"][0]["photos"]) == (6, 72)
        assert found in plain(read_matrices(zero))
        told = (zero.folder / "evaluation-matrix-view.md").read_text()
        assert "zero: not trained." in told.lower()
        assert "| dorsal-left, mirrored | 100.0 [" in told

    def test_every_photo_is_embedded_once_and_once_mirrored_and_again_is_the_same(
        self, zero: Run, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ):
        seen, real = [], inference.embed_rows
        monkeypatch.setattr(
            inference, "embed_rows", lambda photos, *rest: (seen.append(len(photos)), real(photos, *rest))[1]
        )
        zero.embeddings.unlink(missing_ok=True)
        matrix_of(zero, "side")
        assert seen == [72, 72]
        again = crossed_by(zero, "view")[1]
        assert seen == [72, 72]
        drop = ("environment",)
        assert {k: v for k, v in again.items() if k not in drop} == {k: v for k, v in found.items() if k not in drop}

    def test_flip_augmentation_leaves_nothing_to_mirror(self, zero: Run):
        path, flipped = crossed_by(zero, "side", flip_tta=True)
        assert path.name.endswith("-flip-tta.json")
        assert not any(cell["mirrored"] for cell in flipped["cells"])
        assert any("mirrored queries would be the same" in note for note in flipped["notes"])

    def test_side_information_of_a_mirrored_hand_is_the_other_side(self):
        turned = matrix._mirror_sides(made().table)
        assert turned["side"].to_list() == [{"left": "right", "right": "left"}[side] for side in made().table["side"]]

    def test_a_manifest_that_changed_is_not_guessed_at(self, zero: Run, hands: Path, tmp_path: Path):
        copy = Run(shutil.copytree(zero.folder, tmp_path / "copy"))
        write_json(copy.folder / "run.json", {**copy.facts, "manifest_hash": "0" * 64})
        with pytest.raises(RunError, match="its training subjects cannot be read"):
            matrix_of(copy, "view")


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """11k Hands in small, ids 1034 to 1053: up to 1050 train with the right back, and over 1037 the left tests."""
    subject = pl.format("10{}", pl.col("subject").cast(int) + 34)
    folder = tmp_path_factory.mktemp("eleven") / "eleven"
    path = drawn(folder, 20, dataset="hands11k", accessories=pl.lit(0))
    whole = read(path)
    Manifest(whole.table.with_columns(subject=subject), whole.root, "hands11k").write(path)
    return path


@pytest.fixture(scope="module")
def back(eleven: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    changes = ("name=back", "stages.0.epochs=1", "data.protocol=hands11k", "data.view=dorsal-right")
    return train(micro(*changes, "data.label=view"), eleven, tmp_path_factory.mktemp("leak") / "back")


class TestLeaks:
    """Traps 7 and 10: people count, whatever the view, the label or the run they were met in."""

    def test_who_trained_under_another_view_is_left_out_and_counted(self, back: Run):
        path, found = crossed_by(back, "view")
        (gone,) = found["left_out"]
        assert (gone["why"], gone["subjects"]) == ("trained on by back, in dorsal-right", 13)
        assert gone["names"] == [f"{number}" for number in range(1038, 1051)]
        assert found["tested_on"][0]["subjects"] == 3
        assert {cell["counts"]["gallery"] for cell in found["cells"] if cell["gallery"] == "dorsal-left"} == {3}
        assert at(found["cells"], "dorsal-right", "dorsal-right")["counts"]["gallery"] == 3
        assert any(
            remark.startswith(f"left out: {gone['subjects']} subjects") for remark in remarks(typed_matrix(found))
        )
        assert path.name == "evaluation-matrix-view.json"

    def test_a_plain_evaluation_of_another_view_refuses_them(self, back: Run):
        """By identity nobody is met: 1043/dorsal-right is another than 1043/palmar-left. By person they are."""
        with pytest.raises(ProtocolError, match=r"test subjects were trained on in .*back .such as 10.*--matrix view"):
            evaluate(back, changes={"view": "palmar-left"})

    def test_who_an_older_run_was_trained_on_is_left_out(self, zero: Run, hands: Path, tmp_path: Path):
        older = train(micro("name=older", "stages.0.epochs=1", "data.seed=3"), hands, tmp_path / "older")
        run = Run(shutil.copytree(zero.folder, tmp_path / "younger"))
        write_json(run.folder / "run.json", {**run.facts, "init_from": str(older.folder)})
        (run.folder / RECORD).unlink()  # as of a version that made none: looked up in the manifests
        _, found = crossed_by(run, "side")
        assert {one["why"].split(" ")[0] for one in found["left_out"]} <= {"trained", "validated"}
        assert all("older" in one["why"] for one in found["left_out"])
        assert found["tested_on"][0]["subjects"] == 6 - sum(one["subjects"] for one in found["left_out"]) < 6
        assert found["trained_on"]["after"] == ["older"]

    def test_nobody_left_is_an_error_that_says_whom_it_is_about(self, back: Run, eleven: Path, tmp_path: Path):
        """The same people in another manifest of the data set: known by name, whatever the photos."""
        whole = read(eleven)
        whole.filter(pl.col("subject").cast(int).is_between(1038, 1045)).write(tmp_path / "only.parquet")
        with pytest.raises(ProtocolError, match="3 subjects were seen by the run"):
            matrix_of(back, "view", data=[tmp_path / "only.parquet"], protocol="disjoint")

    def test_runs_that_were_trained_on_other_views_lie_beside_each_other(self, back: Run, found: dict[str, Any]):
        other = crossed_by(back, "side")[1]
        columns, rows = stack_matrices([typed_matrix(found), typed_matrix(other)], "rank1")
        assert [row[0].split(":")[0] for row in rows] == ["zero", "back"]
        assert "trained on hands11k, dorsal-right (13 subjects, 39 photos)" in rows[1][0]
        one = {(of["kind"], of["mirrored"]): of for of in found["kinds"]}["other hand, same aspect", True]
        low, value, high = (f"{100 * one['metrics']['rank1'][key]:.1f}" for key in ("low", "value", "high"))
        assert rows[0][columns.index("other hand, same aspect, mirrored")] == f"{value} [{low}, {high}]"
        assert rows[1][columns.index("other aspect of the same hand")] == ""
        assert rows[0][1] != rows[1][1]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("other") / "elsewhere", 4, first=20, dataset="other")


class TestDatasets:
    def test_each_is_tested_alone_and_among_the_other(self, zero: Run, other: Path):
        path, found = crossed_by(zero, "dataset", data=[other])
        plain = read_json(zero.evaluation)
        own, merged = at(found["cells"], "drawn", "drawn"), at(found["cells"], "other", "drawn")
        assert own["metrics"] == plain["metrics"]
        assert (own["counts"]["gallery"], merged["counts"]["gallery"]) == (24, 24 + 16)
        assert merged["metrics"]["map"]["value"] <= own["metrics"]["map"]["value"]
        assert at(found["cells"], "other", "other")["counts"]["subjects"] == 4
        assert [of["protocol"] for of in found["tested_on"]] == ["disjoint", "everyone"]
        assert own["kind"] == "the data set trained on"
        assert at(found["cells"], "drawn", "other")["kind"] == "another data set, among distractors"
        hashes = found["hashes"]
        assert path.name == f"evaluation-matrix-dataset-{hashes['draws'][:8]}-{hashes['manifest'][:8]}.json"

    def test_people_of_one_name_in_one_data_set_are_no_strangers(self, zero: Run, hands: Path, tmp_path: Path):
        """Half of them again, as another manifest: nobody is his own distractor."""
        whole = read(hands)
        subset = replace(whole, table=whole.table.filter(pl.col("path").str.contains("-[01].png")))
        subset.write(tmp_path / "subset.parquet")
        _, found = crossed_by(zero, "dataset", data=[tmp_path / "subset.parquet"])
        first, second = (of["name"] for of in found["tested_on"])
        assert at(found["cells"], second, first)["counts"]["gallery"] == 24 + 16
        assert at(found["cells"], first, second)["counts"]["gallery"] == 40

    def test_what_makes_no_sense_is_refused(self, zero: Run, hands: Path, other: Path):
        with pytest.raises(RunError, match="give each with --data"):
            matrix_of(zero, "dataset")
        with pytest.raises(RunError, match="is the run's own"):
            matrix_of(zero, "dataset", data=[hands])
        with pytest.raises(RunError, match="takes one manifest"):
            matrix_of(zero, "view", data=[hands, other])
        with pytest.raises(RunError, match="omit --protocol"):
            matrix_of(zero, "dataset", data=[other], protocol="disjoint")

    def test_other_photos_do_not_overwrite_the_runs_own(self, zero: Run, other: Path, found: dict[str, Any]):
        own = zero.folder / "evaluation-matrix-view.json"
        before = own.read_bytes()
        path, elsewhere = crossed_by(zero, "view", data=[other])
        assert (path != own, own.read_bytes() == before) == (True, True)
        assert elsewhere["tested_on"][0]["protocol"] == "everyone"
        assert plain(written_matrix(zero, "view"))["hashes"] == found["hashes"]


class TestCommandsAndFigure:
    def test_the_command_prints_and_writes(self, zero: Run):
        called = handreid("evaluate", zero.folder, "--matrix", "view")
        assert called.code == 0
        for words in ("other hand, same aspect, mirrored", "all views", "written to", "zero: not trained"):
            assert words in called.out
        told = json.loads(handreid("evaluate", zero.folder, "--matrix", "side", "--json").out)
        assert told == read_json(zero.folder / "evaluation-matrix-side.json")

    def test_what_a_matrix_cannot_heed_is_refused(self, zero: Run, hands: Path):
        assert "--matrix cannot be combined with --view and --label" in complaint(
            "evaluate", zero.folder, "--matrix", "view", "--view", "dorsal-left", "--label", "hand"
        )
        assert "2 manifests" in complaint("evaluate", zero.folder, "--data", hands, "--data", hands)

    @pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
    def test_a_figure_in_each_format_with_its_caption(self, found: dict[str, Any], tmp_path: Path, suffix: str):
        written = matrix_figure(typed_matrix(found), tmp_path / f"matrix{suffix}")
        assert [path.name for path in written] == [f"matrix{suffix}", "matrix.txt"]
        caption = written[1].read_text()
        assert caption.startswith("Rank-1 by view, galleries across and queries down. Zero: not trained.")
        if suffix == ".svg":
            text = written[0].read_text()
            of = at(found["cells"], "dorsal-left", "dorsal-right")["metrics"]["rank1"]
            assert f">{100 * of['value']:.1f}<" in text
            assert f"[{100 * of['low']:.1f}, {100 * of['high']:.1f}]" in text

    def test_the_figure_reads_what_was_written(self, zero: Run, hands: Path, tmp_path: Path, found: dict[str, Any]):
        called = handreid("figure", "matrix", zero.folder, "--shared", "--metric", "map", "--out", tmp_path / "m.png")
        assert (called.code, (tmp_path / "m.png").exists()) == (0, True)
        empty = Run(tmp_path / "empty")
        empty.folder.mkdir()
        shutil.copy(zero.folder / "run.json", empty.folder)
        assert "handreid evaluate --matrix side" in complaint(
            "figure", "matrix", empty.folder, "--matrix", "side", "--out", tmp_path / "s.png"
        )
        assert read_matrices(empty) == []
        assert "not a matrix over side" in complaint(
            "figure",
            "matrix",
            zero.folder,
            "--matrix",
            "side",
            "--out",
            tmp_path / "s.png",
            "--file",
            zero.folder / "evaluation-matrix-view.json",
        )
        with pytest.raises(DataError, match="no matrix over the same people"):
            matrix_figure(typed_matrix({**found, "shared": None}), tmp_path / "s.png", shared=True)
