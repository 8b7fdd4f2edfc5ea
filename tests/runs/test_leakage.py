"""Nobody is tested who was trained on: by name and by content, from whatever manifest, back to the first run."""

import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from handreid.data.manifest import Manifest, read
from handreid.errors import CheckError, ProtocolError, RunError
from handreid.evaluation.evaluate import evaluate
from handreid.files import read_json
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.exposure import RECORD, exposure_of, exposures_of, read_record
from handreid.runs.folder import Run
from handreid.runs.leakage import check_validation_unseen, find_leaks, hashes_in, unseen
from handreid.training.checks.data import check_subject_disjoint
from handreid.training.train import train
from tests.conftest import MICRO_RECIPE
from tests.edits import edit
from tests.plain_results import crossed as crossed_by
from tests.plain_results import evaluated


def micro(*overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1", *overrides])


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(micro(), photos, tmp_path_factory.mktemp("leakage") / "trained")


@pytest.fixture(scope="module")
def people(run: Run) -> dict[str, list[str]]:
    """Who trains, validates and is tested."""
    split = load_dataset(run.recipe, Path(run.facts["manifest"])).split
    roles = {"train": split.train, "validation": split.validation_rows, "test": split.test[0].query}
    return {role: sorted({split.subjects[row] for row in rows}) for role, rows in roles.items()}


def written(manifest: Manifest, folder: Path, table: pl.DataFrame, name: str = "other") -> Path:
    path = folder / f"{name}.parquet"
    replace(manifest, table=table).write(path)
    return path


def all_tested(table: pl.DataFrame) -> pl.DataFrame:
    """A split that tests every photo of a table, beside some that train and are never looked at."""
    number = pl.int_range(pl.len())
    named = {"path": pl.format("none-{}.jpg", number), "subject": pl.format("nobody {}", number // 2)}
    others = table.head(8).with_columns(**named, split=pl.lit("train"))
    return pl.concat([table.with_columns(split=pl.lit("test")), others])


PREPARED = {"protocol": "prepared"}


def copies(photos: Path, folder: Path, subjects: list[str], change=lambda image: image, suffix: str = ".png") -> Path:
    """Photos of some people under other names, in a data set of another name, each changed as its owner sees fit."""
    made = read(photos)
    rows = []
    for path, subject in made.table.filter(pl.col("subject").is_in(subjects)).select("path", "subject").iter_rows():
        name = f"{len(rows)}{suffix}"
        with Image.open(made.root / path) as image:
            change(image.convert("RGB")).save(folder / name)
        rows.append((name, f"visitor {subject}"))
    table = pl.DataFrame(rows, schema=["path", "subject"], orient="row")
    Manifest(all_tested(table), folder, "elsewhere").write(folder / "copies.parquet")
    return folder / "copies.parquet"


class TestTheRecord:
    def test_every_photo_that_trains_or_validates_is_in_it(self, run: Run, people: dict[str, list[str]]):
        (own,) = read_record(run)
        assert {photo.subject for photo in own.photos if photo.role == "train"} == set(people["train"])
        assert {photo.subject for photo in own.photos if photo.role == "validation"} == set(people["validation"])
        assert all(len(photo.file or "") == len(photo.pixels or "") == 64 for photo in own.photos)
        assert (own.run, own.recipe) == ("trained", "micro")

    def test_a_child_has_those_of_its_parents_though_they_are_gone(self, run: Run, photos: Path, tmp_path: Path):
        shutil.copytree(run.folder, tmp_path / "parent")
        child = train(micro("init_from=parent", "stages=[]"), photos, tmp_path / "child")
        grandchild = train(micro("init_from=child", "stages=[]"), photos, tmp_path / "grandchild")
        for name in ("parent", "child"):
            shutil.rmtree(tmp_path / name)
        assert [one.run for one in read_record(grandchild)] == ["grandchild", "child", "trained"]
        assert read_record(grandchild)[-1].photos == read_record(run)[0].photos
        found, _ = exposures_of(Run(grandchild.folder))
        assert [one.run for one in found if one.photos] == ["trained"]
        assert child.folder.name == "child"

    def test_a_damaged_record_is_an_error_and_not_an_empty_one(self, run: Run, tmp_path: Path):
        copied = Run(shutil.copytree(run.folder, tmp_path / "run"))
        text = (copied.folder / RECORD).read_text()
        for broken in (text.replace("p0", "q0", 1), text[: len(text) // 2], "[]", "null"):
            (copied.folder / RECORD).write_text(broken)
            with pytest.raises(RunError, match=RECORD):
                evaluate(copied)
        (copied.folder / RECORD).write_text(text)
        edit(copied.folder / RECORD, format=99)
        with pytest.raises(RunError, match="format 99"):
            evaluate(copied)
        edit(copied.folder / RECORD, format=2, exposures=[{"run": "x"}])
        with pytest.raises(RunError, match="not a record of training photos"):
            evaluate(copied)

    def test_a_run_of_an_older_version_is_looked_up_in_its_manifest(self, run: Run, photos: Path, tmp_path: Path):
        older = Run(shutil.copytree(run.folder, tmp_path / "trained"))
        (older.folder / RECORD).unlink()
        found, notes = exposures_of(older)
        assert found == read_record(run)
        assert "older version" in notes[0]
        edit(older.folder / "run.json", manifest=str(tmp_path / "gone.parquet"))
        with pytest.raises(RunError, match="its training subjects cannot be read"):
            exposures_of(older)
        assert exposures_of(older, [photos])[0] == found


class TestByName:
    def test_a_manifest_of_training_people_alone_is_refused(self, run: Run, photos: Path, people, tmp_path: Path):
        """The manifest of the run, filtered: of another hash, so nothing of it was compared once."""
        made = read(photos)
        path = written(made, tmp_path, made.table.filter(pl.col("subject").is_in(people["train"])))
        with pytest.raises(ProtocolError, match=r"no unseen subjects are left to test.*trained on by trained"):
            evaluate(run, data=path)

    @pytest.mark.parametrize("role", ["train", "validation"])
    def test_some_of_them_among_others_are_left_out_and_counted(
        self, role: str, run: Run, photos: Path, people, tmp_path: Path
    ):
        made = read(photos)
        kept = [*people["test"], *people[role][:2]]
        path = written(made, tmp_path, all_tested(made.table.filter(pl.col("subject").is_in(kept))))
        file, found = evaluated(run, data=path, changes=PREPARED)
        (out,) = found["left_out"]
        assert out["names"] == people[role][:2]
        assert set(found["subjects"]) == set(people["test"])
        assert any("2 subjects with 8 photos were excluded" in note for note in found["notes"])
        assert read_json(file)["left_out"] == found["left_out"]
        assert found["counts"]["gallery"] == len(people["test"])

    @pytest.mark.parametrize("dataset", ["csv", "folders", "hands of ours"])
    def test_tables_of_unknown_origin_are_of_any_data_set(self, dataset: str, run: Run, photos: Path, people, tmp_path):
        made = read(photos)
        assert made.dataset == "folders"
        table = made.table.filter(pl.col("subject").is_in(people["train"]))
        path = tmp_path / "other.parquet"
        Manifest(table, made.root, dataset).write(path)
        with pytest.raises(ProtocolError, match="trained on by trained"):
            evaluate(run, data=path)

    def test_the_split_that_a_manifest_brings_does_not_excuse_it(self, run: Run, photos: Path, people, tmp_path: Path):
        made = read(photos)
        split = pl.when(pl.col("subject").is_in(people["train"])).then(pl.lit("test")).otherwise(pl.lit("train"))
        path = written(made, tmp_path, made.table.with_columns(split=split))
        with pytest.raises(ProtocolError, match="no unseen subjects are left"):
            evaluate(run, data=path, changes={"protocol": "prepared"})

    def test_a_decomposed_name_is_the_same_name(self, photos: Path, tmp_path: Path):
        made = read(photos)
        spelt = {
            form: made.table.with_columns(subject=pl.col("subject") + unicodedata.normalize(form, "\u00e9"))
            for form in ("NFC", "NFD")
        }
        own = exposure_of(load_dataset(micro(), written(made, tmp_path, spelt["NFC"], "own")))
        other = read(written(made, tmp_path, spelt["NFD"], "other"))
        leaks = find_leaks([own], other, range(len(other)), lambda rows: [None] * len(rows))
        assert sum(len(leak.subjects) for leak in leaks) == len(own.trained) + len(own.chosen_by)
        shouted = replace(other, table=other.table.with_columns(subject=pl.col("subject").str.to_uppercase()))
        assert find_leaks([own], shouted, range(len(other)), lambda rows: [None] * len(rows))


class TestByContent:
    @pytest.mark.parametrize(
        ("change", "suffix"),
        [
            (lambda image: image, ".png"),
            (lambda image: image.convert("RGBA"), ".png"),
            (lambda image: image, ".webp"),
            (lambda image: image, ".bmp"),
        ],
        ids=["png", "alpha", "webp, lossless", "bmp"],
    )
    def test_copies_under_other_names_are_refused(self, change, suffix, run: Run, photos: Path, people, tmp_path: Path):
        if suffix == ".webp":
            path = copies(photos, tmp_path, people["train"], change, ".png")
            for png in tmp_path.glob("*.png"):
                Image.open(png).save(png.with_suffix(".webp"), lossless=True)
            made = read(path)
            table = made.table.with_columns(path=pl.col("path").str.replace(".png", ".webp", literal=True))
            path = written(made, tmp_path, table.with_columns(sha256=pl.lit(None)), "webp")
        else:
            path = copies(photos, tmp_path, people["train"], change, suffix)
        with pytest.raises(ProtocolError, match=r"no unseen subjects are left.*are photos that trained was trained on"):
            evaluate(run, data=path, changes=PREPARED)

    def test_one_copy_gives_away_its_person(self, run: Run, photos: Path, people, tmp_path: Path):
        """Other photos of the same hands, one of them a training photo: everyone of it is known."""
        path = copies(photos, tmp_path, people["test"])
        made = read(path)
        with Image.open(read(photos).root / people["train"][0] / "0.jpg") as image:
            image.save(tmp_path / "one.png")
        extra = pl.DataFrame({"path": ["one.png"], "subject": [f"visitor {people['test'][0]}"]})
        extra = extra.with_columns(split=pl.lit("test"))
        table = pl.concat([made.table.select("path", "subject", "split"), extra])
        Manifest(table, tmp_path, "elsewhere").write(path)
        _, found = evaluated(run, data=path, changes=PREPARED)
        (out,) = found["left_out"]
        assert (out["names"], out["photos"], out["copies"]) == ([f"visitor {people['test'][0]}"], 5, 1)
        assert f"visitor {people['test'][0]}" not in found["subjects"]

    def test_validation_photos_count_too(self, run: Run, photos: Path, people, tmp_path: Path):
        path = copies(photos, tmp_path, [*people["validation"], *people["test"]])
        _, found = evaluated(run, data=path, changes=PREPARED)
        assert found["left_out"][0]["names"] == [f"visitor {name}" for name in people["validation"]]
        assert "validated on" in found["left_out"][0]["why"]

    def test_photos_that_took_another_ones_place_on_the_disk(self, run: Run, photos: Path, people, tmp_path: Path):
        """The manifest says the same as before; the files are others."""
        made = read(photos)
        shutil.copytree(made.root, tmp_path / "photos")
        path = tmp_path / "photos" / "manifest.parquet"
        replace(made, root=path.parent).write(path)
        for shot in range(4):
            source = made.root / people["train"][0] / f"{shot}.jpg"
            shutil.copyfile(source, path.parent / people["test"][0] / f"{shot}.jpg")
        with pytest.raises(ProtocolError, match=r"1 of \d+ test subjects were trained on .*4 photos are copies"):
            evaluate(run, data=path)

    def test_a_matrix_leaves_them_out(self, run: Run, photos: Path, people, tmp_path: Path):
        path = copies(photos, tmp_path, [*people["train"][:1], *people["test"]])
        _, found = crossed_by(run, "dataset", data=[path])
        (out,) = [one for one in found["left_out"] if one["copies"]]
        assert out["names"] == [f"visitor {people['train'][0]}"]

    def test_other_photos_of_other_people_are_all_tested(self, run: Run, hard_photos: Path):
        made = read(hard_photos)
        material = load_dataset(micro(), hard_photos)
        elsewhere = replace(material, manifest=Manifest(made.table, made.root, "elsewhere"))
        own = replace(read_record(run)[0], dataset="here")
        assert not find_leaks([own], elsewhere.manifest, range(len(made)), hashes_in(elsewhere.manifest))


class TestBeforeTraining:
    def test_a_photo_that_trains_and_is_tested_under_two_names(self, photos: Path, tmp_path: Path):
        made = read(photos)
        shutil.copytree(made.root, tmp_path / "photos")
        path = tmp_path / "photos" / "manifest.parquet"
        replace(made, root=path.parent).write(path)
        split = load_dataset(micro(), path).split
        trained, tested = split.paths[split.train[0]], split.paths[split.test[0].query[0]]
        with Image.open(path.parent / trained) as image:
            Image.fromarray(np.asarray(image.convert("RGB"))).save(path.parent / tested, format="PNG")
        with pytest.raises(CheckError, match="1 test photos are also in training, by content"):
            train(micro(), path, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_photo_that_trains_and_validates_under_two_names(self, photos: Path, tmp_path: Path):
        made = read(photos)
        shutil.copytree(made.root, tmp_path / "photos")
        path = tmp_path / "photos" / "manifest.parquet"
        replace(made, root=path.parent).write(path)
        split = load_dataset(micro(), path).split
        trained, validates = split.paths[split.train[0]], split.paths[split.validation_rows[0]]
        shutil.copyfile(path.parent / trained, path.parent / validates)
        result = check_subject_disjoint(load_dataset(micro(), path))
        assert f"1 validation photos are copies of training photos under other names: {validates}" in result.found

    def test_a_split_that_is_given_may_test_people_but_not_photos_that_train(self, photos: Path, tmp_path: Path):
        made = read(photos)
        trains = pl.col("path").str.contains("0.jpg|1.jpg") | (pl.col("subject") < "p04")
        split = pl.when(trains).then(pl.lit("train")).otherwise(pl.lit("test"))
        given = made.table.with_columns(split=split)
        recipe = micro("data.protocol=prepared", "data.validation=closed-set")
        material = load_dataset(recipe, written(made, tmp_path, given))
        assert check_subject_disjoint(material).passed
        run = train(recipe, material.path, tmp_path / "run")
        assert evaluated(run)[1]["left_out"] == []

    def test_validation_of_a_sweep_and_its_test_share_no_photo(self, photos: Path):
        material = load_dataset(micro(), photos)
        check_validation_unseen(material)
        query = material.split.test[0].query
        draws = (replace(material.split.validation[0], query=query[:1]),)
        leaking = replace(material, split=replace(material.split, validation=draws))
        with pytest.raises(ProtocolError, match=r"1 subjects .* both in the validation and the test set"):
            check_validation_unseen(leaking)

    def test_a_parents_photos_under_other_names(self, run: Run, photos: Path, people, tmp_path: Path):
        """The parent is of another data set by name, and of the same photos."""
        shutil.copytree(run.folder, tmp_path / "parent")
        path = copies(photos, tmp_path, [name for names in people.values() for name in names])
        with pytest.raises(ProtocolError, match=r"init_from: .* trained or chosen with \d+ subjects .* are photos"):
            train(micro("init_from=parent", "data.seed=4"), path, tmp_path / "child")
        assert not (tmp_path / "child").exists()


def test_what_a_run_that_trains_nothing_tests_is_new(photos: Path, tmp_path: Path):
    run = train(micro("stages=[]"), photos, tmp_path / "zero")
    material = load_dataset(run.recipe, photos)
    assert [one.photos for one in exposures_of(run)[0]] == [()]
    assert unseen(run, material) == (material, [], [])
