"""Test photos looked at: embeddings that are kept and never stale, strips, confusions, thumbnails, and their figure."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from threadpoolctl import threadpool_info, threadpool_limits

from handreid.data.manifest import Manifest, read
from handreid.errors import DataError, PhotoError, RunError
from handreid.evaluation.embed import embed
from handreid.evaluation.embedding_cache import Contents, add_to_cache, read_cache
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.files import file_hash, read_json
from handreid.metrics.query_scores import score
from handreid.models.embedder import Embedder
from handreid.progress import NullProgress
from handreid.recipe import parse_recipe
from handreid.report.figures.embedding_map import projection
from handreid.report.figures.ranking_strip import caption, draw_strips, write_strips
from handreid.report.figures.strip_selection import ONCE, RULES, Strip, choose, strip_of
from handreid.report.photos import confusion
from handreid.report.photos.confusion import mistakes_by_relation, most_confused
from handreid.report.photos.test_photos import TestPhotos as Looked  # pytest would collect a name that begins with Test
from handreid.report.photos.test_photos import load_test_photos
from handreid.report.photos.thumbnails import BORDER, columns_of, data_url, encoded, sprite, thumbnail, thumbnails
from handreid.runs.folder import Run
from handreid.training.train import train
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.edits import edit, edit_recipe, note
from tests.plain_results import evaluated

pytestmark = pytest.mark.usefixtures("coarse_figures")

SECRET = b"taken at 51.5 N"
VIEWS = [("dorsal", "right"), ("dorsal", "left"), ("palmar", "right"), ("palmar", "left")]


def with_secrets(image: Image.Image, path: Path, orientation: int = 1) -> None:
    """A JPEG that says where it was taken in each way that a JPEG can."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET.decode()
    exif[0x8825] = {1: "N", 2: (51.0, 30.0, 0.0)}
    image.save(path, quality=95, exif=exif, comment=SECRET, icc_profile=SECRET * 9)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 10 people with two photos of each of four views, in files that say too much."""
    root = tmp_path_factory.mktemp("tested")
    rows = []
    for person in range(10):
        for number in range(8):
            aspect, side = VIEWS[number // 2]
            random = np.random.default_rng([person, number])
            pixels = np.tile(np.random.default_rng(person).integers(40, 215, (1, 1, 3)), (30, 44, 1)).astype(float)
            pixels[:, 5 * (number // 2) :][:, :4] = np.random.default_rng([person, number // 2]).integers(0, 255, 3)
            name = f"p{person:02d}/{number}.jpg"
            (root / name).parent.mkdir(exist_ok=True)
            noisy = (pixels + random.normal(0, 25, pixels.shape)).clip(0, 255).astype(np.uint8)
            with_secrets(Image.fromarray(noisy), root / name)
            rows.append((name, f"p{person:02d}", side, aspect))
    table = pl.DataFrame(rows, schema=["path", "subject", "side", "aspect"], orient="row")
    Manifest(table, root).write(root / "manifest.parquet")
    return root / "manifest.parquet"


@pytest.fixture(scope="module")
def run(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = parse_recipe(MICRO_RECIPE, "micro", ["stages.0.epochs=1", "data.label=view", "evaluate.draws=2"])
    run = train(recipe, views, tmp_path_factory.mktemp("tested") / "run")
    evaluate(run)
    return run


@pytest.fixture(scope="module")
def tested(run: Run) -> Looked:
    return load_test_photos(run)


@pytest.fixture
def own(run: Run, tmp_path: Path) -> Run:
    """A copy of the run with its photos, to spoil."""
    facts = read_json(run.folder / "run.json")
    root = Path(facts["manifest"]).parent
    shutil.copytree(root, tmp_path / "photos")
    copied = Run(shutil.copytree(run.folder, tmp_path / "run"))
    path = tmp_path / "photos" / "manifest.parquet"
    replace(read(path), root=path.parent).write(path)  # or it would still know where the photos were
    edit(copied.folder / "run.json", manifest=str(path))
    return copied


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many photos were decoded and embedded."""
    from handreid import inference

    counted: Counter[str] = Counter()

    def counting(name: str, work: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def counted_work(*arguments: Any) -> np.ndarray:
            found = work(*arguments)
            counted[name] += len(found)
            return found

        return counted_work

    for name in ("decode_rows", "embed_rows"):
        monkeypatch.setattr(inference, name, counting(name, getattr(inference, name)))
    return counted


class Said(NullProgress):
    """Progress that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def made_up(tested: Looked, embeddings: np.ndarray) -> Looked:
    return replace(tested, embeddings=embeddings.astype(np.float32))


class TestKeptEmbeddings:
    def test_the_evaluation_keeps_what_it_ranked(self, run: Run, tested: Looked, at_work: Counter[str]):
        with safe_open(run.embeddings, framework="numpy") as file:
            kept = file.get_tensor("embeddings")
            facts = json.loads(file.metadata()["handreid"])
        found = read_json(run.evaluation)
        assert facts["model"] == found["hashes"]["model"]
        files = facts["manifests"][found["hashes"]["manifest"]]
        assert set(files) == set(tested.names)
        assert all(files[name] == file_hash(path) for name, path in zip(tested.names, tested.paths, strict=True))
        place = {key[0]: at for at, key in enumerate(facts["keys"])}
        assert {tuple(key[1:]) for key in facts["keys"]} == {(None, "photo", None)}
        embeddings = kept[[place[files[name]] for name in tested.names]]
        assert kept.dtype == np.float32
        assert np.array_equal(embeddings, load_test_photos(run).embeddings)
        assert not at_work
        scores = score(embeddings, tested.rows, tested.split.test, tested.split.identities)
        assert scores.means()["map"] == pytest.approx(found["metrics"]["map"]["value"], abs=1e-12)

    def test_an_evaluation_that_was_made_is_made_again_without_looking(self, own: Run, at_work: Counter[str]):
        before = read_json(own.evaluation)
        _, found = evaluated(own)
        assert not at_work
        assert json.loads(json.dumps(found["metrics"])) == before["metrics"]

    def test_another_view_label_or_protocol_finds_them(self, own: Run, tested: Looked, at_work: Counter[str]):
        for changes in ({"view": "dorsal-right"}, {"label": "hand"}, {"label": "subject", "view": "palmar-left"}):
            path, _ = evaluate(own, changes=changes)
            assert path != own.evaluation
        assert not at_work

    def test_other_data_with_the_same_photos_finds_them(self, own: Run, tested: Looked, at_work: Counter[str]):
        """By what is on them, under whatever names and in whatever manifest."""
        root = Path(own.facts["manifest"]).parent
        (root / "copies").mkdir()
        table = tested.manifest.table[tested.rows]
        for number, path in enumerate(tested.paths):
            shutil.copyfile(path, root / "copies" / f"{number}.jpg")
        names = pl.Series([f"copies/{number}.jpg" for number in range(len(tested))])
        Manifest(table.with_columns(path=names), root, "others").write(root / "others.parquet")
        found = embed(own, root / "embedded.parquet", data=root / "others.parquet")
        assert np.array_equal(found["embedding"].to_numpy(), tested.embeddings)
        assert not at_work

    def test_mirrored_photos_are_kept_beside_the_others(self, own: Run, tested: Looked, at_work: Counter[str]):
        path, _ = evaluate(own, flip_tta=True)
        assert path.name.endswith("-flip-tta.json")
        assert at_work["embed_rows"] == len(tested)
        evaluate(own, flip_tta=True)
        evaluate(own)
        assert at_work["embed_rows"] == len(tested)
        assert np.array_equal(load_test_photos(own).embeddings, tested.embeddings)

    def test_a_matrix_keeps_mirror_images_too(self, own: Run, tested: Looked, at_work: Counter[str]):
        matrix_of(own, "view")
        assert (at_work["embed_rows"], at_work["decode_rows"]) == (len(tested), len(tested))
        matrix_of(own, "side")
        assert at_work["embed_rows"] == len(tested)

    def test_an_older_run_is_embedded_anew(self, own: Run, tested: Looked, at_work: Counter[str]):
        own.embeddings.unlink()
        assert np.allclose(load_test_photos(own).embeddings, tested.embeddings, atol=1e-6)
        assert at_work["embed_rows"] == len(tested)
        assert not own.embeddings.exists()  # looking writes nothing into a run

    def test_a_file_of_the_former_format_is_replaced(self, own: Run, tested: Looked, at_work: Counter[str]):
        facts = {"format": 1, "model": tested.model_hash, "manifest": tested.manifest.hash, "flip_tta": False}
        tensors = {"embeddings": np.zeros((1, 4), np.float32), "rows": np.zeros(1, np.int64)}
        save_file(tensors, own.embeddings, {"handreid": json.dumps({**facts, "photos": ["a"], "contents": ["b"]})})
        evaluate(own)
        assert at_work["embed_rows"] == len(tested)
        assert np.allclose(load_test_photos(own).embeddings, tested.embeddings, atol=1e-6)
        assert at_work["embed_rows"] == len(tested)

    def test_another_model_is_never_looked_at_with_old_embeddings(
        self, own: Run, tested: Looked, at_work: Counter[str]
    ):
        embedder = Embedder.load(own.model)
        for parameter in embedder.parameters():
            parameter.data += 0.1 * np.sin(parameter.numel())
        embedder.save(own.model)
        note(own.folder, own.model.name)
        found = load_test_photos(own)
        assert at_work["embed_rows"] == len(tested)
        assert found.model_hash == file_hash(own.model) != tested.model_hash
        assert not np.allclose(found.embeddings, tested.embeddings, atol=1e-3)
        evaluate(own)
        with safe_open(own.embeddings, framework="numpy") as file:
            assert len(file.get_tensor("embeddings")) == len(tested)  # those of the former model are gone

    def test_a_photo_changed_in_place_is_noticed(self, own: Run, tested: Looked, at_work: Counter[str]):
        load_test_photos(own)
        photo = Path(own.facts["manifest"]).parent / tested.names[3]
        Image.new("RGB", (44, 30), "red").save(photo)
        changed = np.abs(load_test_photos(own).embeddings - tested.embeddings).max(axis=1) > 1e-4
        assert at_work["embed_rows"] == 1
        assert np.flatnonzero(changed).tolist() == [3]

    def test_a_photo_that_is_gone_leaves_its_numbers(self, own: Run, tested: Looked, at_work: Counter[str]):
        before = read_json(own.evaluation)
        for name in tested.names:
            (Path(own.facts["manifest"]).parent / name).unlink(missing_ok=True)
        assert np.array_equal(load_test_photos(own).embeddings, tested.embeddings)
        _, found = evaluated(own)
        assert {key: found[key] for key in ("metrics", "separation", "notes")} == {
            key: before[key] for key in ("metrics", "separation", "notes")
        }
        assert not at_work
        own.embeddings.unlink()
        with pytest.raises(PhotoError, match="is missing"):
            load_test_photos(own)
        with pytest.raises(PhotoError, match="is missing"):
            evaluate(own)

    def test_what_was_on_a_photo_that_is_gone_the_manifest_may_tell(self, own: Run, tested: Looked):
        """A manifest that the run has never seen, of photos that it has, with their hashes."""
        place = own.folder.parent / "other.parquet"
        table = tested.manifest.table[tested.rows].with_columns(path=pl.lit("gone/") + pl.col("path"))
        hashes = pl.Series([file_hash(path) for path in tested.paths])
        Manifest(table.with_columns(sha256=hashes), place.parent, "others").write(place)
        found = embed(own, place.parent / "embedded.parquet", data=place)
        assert np.array_equal(found["embedding"].to_numpy(), tested.embeddings)
        Manifest(table, place.parent, "others").write(place)
        with pytest.raises(PhotoError, match="is missing"):
            embed(own, place.parent / "embedded.parquet", data=place)

    def test_equal_manifests_in_another_order_are_the_same(self, own: Run, tested: Looked, at_work: Counter[str]):
        path = Path(own.facts["manifest"])
        manifest = read(path)
        replace(manifest, table=manifest.table.reverse()).write(path)
        found = load_test_photos(own)
        assert found.rows.tolist() != tested.rows.tolist()
        assert dict(zip(found.names, found.embeddings[:, 0].tolist(), strict=True)) == dict(
            zip(tested.names, tested.embeddings[:, 0].tolist(), strict=True)
        )
        assert not at_work

    def test_mirrored_photos_are_others(self, own: Run, tested: Looked, at_work: Counter[str]):
        edit_recipe(own.folder, "flip_tta: false", "flip_tta: true")
        load_test_photos(own)
        assert at_work["embed_rows"] == len(tested)

    @pytest.mark.parametrize("content", [b"", b"half of a file", b"\x02\0\0\0\0\0\0\0{}"])
    def test_a_broken_file_is_said_and_made_anew(self, own: Run, tested: Looked, content: bytes, at_work: Counter[str]):
        own.embeddings.write_bytes(content)
        told = Said()
        load_test_photos(own, progress=told)
        assert at_work["embed_rows"] == len(tested)
        assert [line.startswith(f"note: {own.embeddings} is damaged (") for line in told.lines] == [True]
        evaluate(own)
        told.lines.clear()
        load_test_photos(own, progress=told)
        assert not told.lines
        assert at_work["embed_rows"] == 2 * len(tested)

    @pytest.mark.parametrize("where", [0.2, 0.5, 0.999])
    def test_one_flipped_bit_is_noticed_wherever_it_is(
        self, own: Run, tested: Looked, where: float, at_work: Counter[str]
    ):
        """In the header's hashes, and in the numbers, where a flipped exponent gave 3.6e37."""
        content = bytearray(own.embeddings.read_bytes())
        content[int(where * len(content))] ^= 0x40
        own.embeddings.write_bytes(content)
        told = Said()
        found = load_test_photos(own, progress=told)
        assert np.allclose(found.embeddings, tested.embeddings, atol=1e-6)
        assert at_work["embed_rows"] == len(tested)
        assert "damaged" in told.lines[0]
        evaluate(own)
        assert np.allclose(load_test_photos(own).embeddings, tested.embeddings, atol=1e-6)

    def test_two_evaluations_at_once_lose_nothing_that_was_whole(self, own: Run, tested: Looked):
        """Both add to what is there when they write, not to what was there when they began."""
        kept = read_cache(own, tested.model_hash, NullProgress())
        everything = Contents(tuple(key.file for key in kept.keys), tuple(key.file for key in kept.keys))
        for shown in ("both", "mirror image"):
            keys = everything.keys(None, shown)
            add_to_cache(
                own,
                tested.manifest,
                tested.rows,
                everything,
                [(keys, kept.embeddings)],
                tested.model_hash,
                NullProgress(),
            )
        now = read_cache(own, tested.model_hash, NullProgress())
        assert {key.shown for key in now.keys} == {"photo", "both", "mirror image"}
        assert np.array_equal(now.embeddings[: len(kept.keys)], kept.embeddings)

    def test_a_disk_that_takes_none_costs_nothing_but_time(
        self, own: Run, monkeypatch: pytest.MonkeyPatch, tested: Looked
    ):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        own.embeddings.unlink()
        monkeypatch.setattr("handreid.evaluation.embedding_cache.save_file", full)
        path, _ = evaluate(own)
        assert path == own.evaluation
        assert not own.embeddings.exists()

    def test_the_table_and_the_map_use_them_too(self, run: Run, tested: Looked, at_work: Counter[str], tmp_path: Path):
        assert handreid("embed", run.folder, "--split", "test", "--out", tmp_path / "e.parquet").code == 0
        assert not at_work
        assert handreid("embed", run.folder, "--out", tmp_path / "all.parquet").code == 0
        assert at_work["embed_rows"] == len(tested.manifest) - len(tested)

    def test_it_is_written_whole_or_not_at_all(self, own: Run, monkeypatch: pytest.MonkeyPatch):
        def half(_: object, path: Path, __: object) -> None:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        before = own.embeddings.read_bytes()
        monkeypatch.setattr("handreid.evaluation.embedding_cache.save_file", half)
        with pytest.raises(KeyboardInterrupt):
            evaluate(own, flip_tta=True)
        assert own.embeddings.read_bytes() == before
        assert not list(own.folder.glob(".*writing*"))


class TestLookAt:
    def test_photos_are_told_by_position(self, tested: Looked, views: Path):
        manifest = read(views)
        table = manifest.table[tested.rows]
        assert tested.names == table["path"].to_list()
        assert tested.subjects == table["subject"].to_list()
        assert tested.paths == [manifest.root / name for name in tested.names]
        assert [f"{s}/{v}" for s, v in zip(tested.subjects, tested.views, strict=True)] == tested.identities
        for number, draw in enumerate(tested.split.test):
            assert tested.rows[tested.gallery(number)].tolist() == draw.gallery.tolist()
            assert tested.rows[tested.query(number)].tolist() == draw.query.tolist()
        with pytest.raises(DataError, match="no draw 2: the 2 test draws are numbered from 0 to 1"):
            tested.query(2)

    def test_a_manifest_that_changed_or_is_gone_is_said_in_a_line(self, own: Run):
        path = Path(own.facts["manifest"])
        manifest = read(path)
        replace(manifest, table=manifest.table[:-1]).write(path)
        with pytest.raises(RunError, match=r"has changed since .* was trained on it"):
            load_test_photos(own)
        path.unlink()
        with pytest.raises(DataError, match="no such file"):
            load_test_photos(own)
        (own.folder / "model.safetensors").unlink()
        with pytest.raises(RunError, match="--resume"):
            load_test_photos(own)


def all_strips(tested: Looked) -> list[list[Strip]]:
    return [
        [strip_of(tested, tested.names[photo], draw=draw) for photo in tested.query(draw)]
        for draw in range(len(tested.split.test))
    ]


class TestStrips:
    def test_ranks_are_those_of_the_evaluation(self, run: Run, tested: Looked):
        found = json.loads(run.evaluation.read_text())
        for strips, draw in zip(all_strips(tested), found["draws"], strict=True):
            assert [tested.names[strip.query] for strip in strips] == [found["photos"][at] for at in draw["query"]]
            assert [strip.rank for strip in strips] == [ranks[0] for ranks in draw["ranks"]]
            assert [strip.matches for strip in strips] == [len(ranks) for ranks in draw["ranks"]]

    @pytest.mark.parametrize("seed", range(4))
    def test_ties_rank_as_the_evaluation_ranks_them(self, tested: Looked, seed: int):
        """With embeddings of few values, nearly every similarity is one of several."""
        coarse = np.random.default_rng(seed).integers(0, 2, (len(tested), 3)) + np.array([1, 0, 0])
        alike = made_up(tested, coarse if seed else np.ones((len(tested), 3)))
        ranks = score(alike.embeddings, alike.rows, alike.split.test, alike.split.identities).ranks
        strips = [strip for of in all_strips(alike) for strip in of]
        assert [strip.rank for strip in strips] == [of[0] for of in ranks]
        for strip in strips:
            order = [(-hit.similarity, hit.right, alike.names[hit.photo]) for hit in strip.hits]
            assert order == sorted(order)

    def test_hits_are_the_most_similar_of_the_gallery(self, tested: Looked):
        strip = choose(tested, 1)[0]
        cosine = tested.embeddings[tested.gallery(1)].astype(float) @ tested.embeddings[strip.query].astype(float)
        assert len(strip.hits) == 10
        assert [hit.similarity for hit in strip.hits] == pytest.approx(sorted(cosine, reverse=True)[:10], abs=1e-6)
        for hit in strip.hits:
            assert hit.photo in tested.gallery(1)
            assert hit.right == (tested.identities[hit.photo] == tested.identities[strip.query])

    def test_the_first_right_answer_beyond_the_hits_is_kept(self, tested: Looked):
        tested = made_up(
            tested, np.random.default_rng(0).normal(size=(len(tested), 8)) + 1.5 * np.eye(99)[tested.labels, :8]
        )
        assert {strip.rank for strip in all_strips(tested)[0]} >= {1, 2}
        for strip in (strip_of(tested, tested.names[photo], top=1) for photo in tested.query(0)):
            assert strip.rank is not None
            assert (strip.first is None) == (strip.rank == 1) == strip.hits[0].right
            if strip.first:
                assert tested.identities[strip.first.photo] == tested.identities[strip.query]
                assert strip.first.similarity <= strip.hits[0].similarity

    def test_the_rules_choose_what_they_say(self, tested: Looked):
        tested = made_up(tested, np.random.default_rng(0).normal(size=(len(tested), 3)))
        ranks = score(tested.embeddings, tested.rows, tested.split.test, tested.split.identities).ranks
        # one right answer each: average precision is 1 / rank
        key = {tested.names[photo]: -of[0] for photo, of in zip(tested.query(0), ranks, strict=False)}
        assert len(set(key.values())) > 5
        order = sorted(key, key=lambda name: (key[name], name))
        people = len(set(tested.subjects))
        chosen = choose(tested, each=people)
        by_rule = {rule: [tested.names[s.query] for s in chosen if s.rule == rule] for rule in RULES}
        first: dict[str, str] = {}
        for name in order:
            first.setdefault(name[:3], name)
        assert by_rule["worst"] == list(first.values())
        middle = (len(order) - 1) / 2
        assert by_rule["median"][0] in (order[int(middle)], order[int(middle + 0.5)])
        assert all(len({name[:3] for name in by_rule[rule]}) == people for rule in ("worst", "median", "random"))
        assert by_rule["asked"] == []
        assert choose(tested, each=people) == chosen
        others = {
            tuple(tested.names[s.query] for s in choose(tested, each=people, seed=seed) if s.rule == "random")
            for seed in range(5)
        }
        assert len(others) > 2
        assert [len([s for s in choose(tested, each=2) if s.rule == rule]) for rule in RULES] == [2, 2, 2, 0]

    def test_a_query_without_a_right_answer_is_never_chosen_but_can_be_asked_for(self, tested: Looked):
        alone = tested.names[int(tested.query(0)[0])]
        labels = np.where(np.array(tested.names) == alone, 10**6, tested.labels)
        without = replace(tested)
        without.__dict__["labels"] = labels
        assert alone not in {without.names[s.query] for s in choose(without, each=99)}
        strip = strip_of(without, alone)
        assert (strip.rank, strip.matches, strip.first) == (None, 0, None)
        assert "in this gallery" in {text.get_text() for text in draw_strips(without, [strip]).axes[0].texts}

    def test_a_query_is_found_by_the_end_of_its_path(self, tested: Looked):
        name = tested.names[int(tested.query(0)[0])]
        assert strip_of(tested, name).rule == "asked"
        single = replace(tested)
        single.__dict__["names"] = [f"deep/{one.replace('/', '_')}" for one in tested.names]
        assert strip_of(single, name.replace("/", "_")).query == strip_of(tested, name).query
        with pytest.raises(DataError, match=r"could be p0\d/0.jpg.*give more of its path"):
            strip_of(tested, "0.jpg")
        with pytest.raises(DataError, match=r"no test photo of .* has the path 'deep/p9_0.jpg' \(did you mean"):
            strip_of(single, "deep/p9_0.jpg")
        among = tested.names[int(tested.gallery(0)[0])]
        with pytest.raises(DataError, match=f"{among} is not a query of draw 0"):
            strip_of(tested, among)


class TestConfusion:
    def test_it_is_what_a_loop_counts(self, tested: Looked, monkeypatch: pytest.MonkeyPatch):
        noisy = made_up(tested, np.random.default_rng(0).integers(-1, 2, (len(tested), 4)) + 0.5)
        wrong, searched = Counter(), Counter()
        for strip in [strip for of in all_strips(noisy) for strip in of]:
            mine, first = noisy.identities[strip.query], noisy.identities[strip.hits[0].photo]
            searched[mine] += 1
            wrong[mine, first] += mine != first
        both = {(a, b): wrong[a, b] + wrong[b, a] for a, b in {tuple(sorted(pair)) for pair in wrong} if a != b}
        both = {pair: count for pair, count in both.items() if count}
        for cells in (2**22, 3):  # in one block, and query by query
            monkeypatch.setattr(confusion, "_CELLS", cells)
            found = most_confused(noisy, top=10**6)
            assert {tuple(sorted((m.identity, m.other))): m.wrong for m in found} == both
            for m in found:
                assert m.ways == (wrong[m.identity, m.other], wrong[m.other, m.identity])
                assert m.ways[0] >= m.ways[1]
                assert m.queries == searched[m.identity] + searched[m.other]
                assert (noisy.identities[m.query], noisy.identities[m.hit]) == (m.identity, m.other)
        assert [m.wrong for m in found] == sorted((m.wrong for m in found), reverse=True)
        assert most_confused(noisy, 3) == found[:3]
        assert sum(mistakes_by_relation(noisy).values()) == sum(both.values()) > 0

    def test_a_tie_is_a_mistake_and_a_perfect_model_makes_none(self, tested: Looked):
        perfect = np.eye(len(set(tested.labels.tolist())))[tested.labels]
        assert most_confused(made_up(tested, perfect)) == []
        assert mistakes_by_relation(made_up(tested, perfect)) == {}
        alike = made_up(tested, np.ones((len(tested), 4)))
        assert sum(mistakes_by_relation(alike).values()) == sum(len(draw.query) for draw in tested.split.test)

    def test_relations(self, tested: Looked):
        """The other hand looks alike: every first answer is that of the same person's other hand."""
        people = np.unique(tested.subjects, return_inverse=True)[1]
        aspect = np.array(["palmar" in view for view in tested.views])
        hands = made_up(tested, np.concatenate([np.eye(20)[people * 2 + aspect]], axis=1))
        assert set(mistakes_by_relation(hands)) == {"the same person's other hand"}
        (mixed, *_) = most_confused(hands)
        assert mixed.identity.replace("left", "right") == mixed.other.replace("left", "right")
        assert mixed.relation == "the same person's other hand"
        at = {view: tested.views.index(view) for view in ("dorsal-right", "dorsal-left", "palmar-right", "palmar-left")}
        one = at["dorsal-right"]
        assert confusion.relation(tested, one, at["palmar-right"]) == "another aspect of the same hand"
        assert confusion.relation(tested, one, at["palmar-left"]) == "another aspect of the same person's other hand"
        other = next(n for n, subject in enumerate(tested.subjects) if subject != tested.subjects[one])
        assert confusion.relation(tested, one, other) == "another person"


class TestThumbnails:
    def test_a_photo_is_whole_upright_and_centred(self, tmp_path: Path):
        wide = Image.new("RGB", (400, 200), "white")
        wide.paste("red", (0, 0, 100, 200))  # the left, which orientation 6 turns to the top
        with_secrets(wide, tmp_path / "a.jpg", orientation=6)
        (image,) = thumbnails([tmp_path / "a.jpg"], 64)
        pixels = np.asarray(image).astype(int)
        assert pixels.shape == (64, 64, 3)
        assert (pixels[:, :15] == BORDER).all()
        assert (pixels[:, 49:] == BORDER).all()
        red = (pixels[:, :, 0] > 200) & (pixels[:, :, 1] < 90)
        assert red[2:14, 18:46].all()
        assert not red[20:].any()
        assert (pixels[20:, 18:46] > 225).all()

    @pytest.mark.parametrize("size", [(3, 900), (900, 3), (1, 1), (56, 56)])
    def test_odd_shapes(self, size: tuple[int, int], tmp_path: Path):
        Image.new("L", size, 0).save(tmp_path / "a.png")
        image = thumbnail(tmp_path / "a.png", 56)
        assert (image.size, image.mode) == ((56, 56), "RGB")
        assert (np.asarray(image) == 0).any()

    def test_an_error_names_the_photo(self, tmp_path: Path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
        with pytest.raises(PhotoError, match=r"b\.png is missing"):
            thumbnails([tmp_path / "a.png", tmp_path / "b.png"], 32)
        (tmp_path / "c.jpg").write_bytes(b"no photo")
        with pytest.raises(PhotoError, match=r"c\.jpg cannot be read"):
            thumbnails([tmp_path / "a.png", tmp_path / "c.jpg"], 32)

    @pytest.mark.parametrize("kind", ["webp", "jpeg", "png"])
    def test_nothing_but_pixels_goes_on(self, kind: str, tested: Looked):
        with Image.open(tested.paths[0]) as photo:
            assert {"exif", "icc_profile", "comment"} <= photo.info.keys()
            whole, mime = encoded(photo, kind, 80)
        small = data_url(thumbnail(tested.paths[0], 48), kind)
        assert small.startswith(f"data:{mime};base64,")
        for content in (whole, base64.b64decode(small.partition(",")[2])):
            assert SECRET not in content
            with Image.open(io.BytesIO(content)) as image:
                assert image.format.lower() == kind
                assert not image.getexif()
                assert not {"exif", "icc_profile", "comment", "xmp"} & image.info.keys()

    def test_a_sprite_holds_them_row_by_row(self, tested: Looked):
        images = [Image.new("RGB", (20, 20), (25 * number, 0, 255 - 25 * number)) for number in range(8)]
        content, mime = sprite(images, 3, quality=95)
        assert mime == "image/webp"
        with Image.open(io.BytesIO(content)) as sheet:
            assert sheet.size == (60, 60)
            for number in range(8):
                x, y = number % 3 * 20 + 10, number // 3 * 20 + 10
                assert (
                    np.abs(np.array(sheet.convert("RGB").getpixel((x, y))) - images[number].getpixel((0, 0))).max() < 9
                )
        assert sprite(images, 3, quality=95)[0] == content
        assert SECRET not in sprite(thumbnails(tested.paths, 24))[0]
        with pytest.raises(DataError, match="exceed the size of a WebP image"):
            sprite(images * 120, 1)
        with pytest.raises(DataError, match="no photo"):
            sprite([])


class TestFigureOfStrips:
    @pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
    def test_it_is_written_with_its_caption(self, run: Run, tested: Looked, suffix: str, tmp_path: Path):
        out = tmp_path / f"a{suffix}"
        called = handreid("figure", "strip", run.folder, "--out", out, "--each", 1)
        assert called.code == 0, called.err
        assert called.out == f"written to {out} and {tmp_path / 'a.txt'}\n"
        said = (tmp_path / "a.txt").read_text()
        for part in (RULES["worst"], RULES["median"], RULES["random"], ONCE, f"n = {len(tested.query(0))} queries"):
            assert part in said
        for known in (tested.model_hash, tested.manifest.hash, tested.split.draws_hash):
            assert known[:16] in said
        assert SECRET not in out.read_bytes()
        if suffix == ".png":
            with Image.open(out) as image:
                assert image.info.keys() <= {"Description", "dpi"}
                assert image.info["Description"] + "\n" == said
        if suffix == ".png":  # that a format makes the same bytes of the same figure, its own tests say
            handreid("figure", "strip", run.folder, "--out", tmp_path / "b.png", "--each", 1)
            assert (tmp_path / "b.png").read_bytes() == out.read_bytes()

    def test_right_and_wrong_are_told_by_frame_and_mark_and_colour(self, tested: Looked):
        strips = choose(tested, each=2)
        (axes,) = draw_strips(tested, strips).axes
        frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        hits = [hit for strip in strips for hit in (*strip.hits, *filter(None, [strip.first]))]
        right = sum(hit.right for hit in hits)
        solid = [frame for frame in frames if frame.get_linestyle() in ("-", "solid")]
        assert len(solid) == right + len(strips)
        assert len(frames) - len(solid) == len(hits) - right > 0
        assert len({frame.get_edgecolor() for frame in frames}) == 3
        strokes = [line for line in axes.lines if line.get_color() == "white"]
        assert len(strokes) == right + 2 * (len(hits) - right)  # a tick is one stroke, a cross two
        assert len(axes.images) == len(hits) + len(strips)
        texts = [text.get_text() for text in axes.texts]
        for strip in strips:
            assert f"rank {strip.rank}" in texts
        assert texts.count("···") == sum(strip.first is not None for strip in strips)
        alike = [
            h for s in strips for h in s.hits if not h.right and tested.subjects[h.photo] == tested.subjects[s.query]
        ]
        assert texts.count("same person") == len(alike) > 0

    def test_queries_by_name(self, run: Run, tested: Looked, tmp_path: Path):
        names = [tested.names[int(photo)] for photo in tested.query(1)[:2]]
        words = ("figure", "strip", run.folder, "--out", tmp_path / "a.svg", "--draw", 1)
        assert handreid(*words, "--query", names[0], "--query", names[1], "--query", names[0]).code == 0
        said = (tmp_path / "a.txt").read_text()
        assert f"asked (2): {RULES['asked']}" in said
        assert ONCE not in said
        drawn = (tmp_path / "a.svg").read_text()
        for name in names:
            assert f">{tested.identities[tested.names.index(name)]}</text>" in drawn
        assert "Worst" not in drawn

    def test_what_is_wrong_is_said_in_a_line(self, own: Run, tested: Looked, tmp_path: Path):
        words = ("figure", "strip", own.folder, "--out")
        out = tmp_path / "a.png"
        assert "the suffix must be .png or .svg or .pdf" in complaint(*words, tmp_path / "a.gif")
        assert "there is no draw 7" in complaint(*words, out, "--draw", 7)
        assert "has the path 'nobody.jpg'" in complaint(*words, out, "--query", "nobody.jpg")
        for path in (Path(own.facts["manifest"]).parent).glob("p0*/*.jpg"):
            path.unlink()
        assert "is missing" in complaint(*words, out)
        Path(own.facts["manifest"]).unlink()
        assert "no such file" in complaint(*words, out)
        assert not out.exists()

    def test_the_caption_says_the_seed(self, tested: Looked):
        strips = choose(tested, each=1, seed=7)
        assert "fixed seed (7)" in caption(tested, strips, 7)

    def test_it_works_on_a_run_made_yesterday(self, own: Run, tmp_path: Path):
        own.embeddings.unlink()
        own.evaluation.unlink()
        assert [path.name for path in write_strips(own, tmp_path / "a.png", each=1)] == ["a.png", "a.txt"]


class TestMap:
    def test_the_pointer_finds_the_photo_of_its_point(self, run: Run, tested: Looked, tmp_path: Path):
        words = ("figure", "embedding", run.folder, "--method", "pca", "--out", tmp_path / "a.html")
        assert handreid(*words).code == 0
        text = (tmp_path / "a.html").read_text()
        (content,) = re.findall(r"url\(data:image/webp;base64,([\w+/=]+)\)", text)
        assert SECRET not in base64.b64decode(content)
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            sheet = np.asarray(image.convert("RGB")).astype(float)
        call = text[text.index("Plotly.newPlot(") :]
        traces, _ = json.JSONDecoder().raw_decode(call, call.index("["))
        points = [trace for trace in traces if trace.get("hoverinfo") == "text"]
        columns, side, seen = columns_of(len(tested)), 128, 0
        smalls = [np.asarray(image).astype(float) for image in thumbnails(tested.paths, side)]
        for trace in points:
            for at, hover in zip(trace["customdata"], trace["text"], strict=True):
                person, name = re.findall(r"<b>(p\d+)/.*?<br>(\d\.jpg)", hover)[0]
                tile = sheet[at // columns * side :, at % columns * side :][:side, :side]
                apart = [np.abs(tile - small).mean() for small in smalls]
                assert tested.names[int(np.argmin(apart))] == f"{person}/{name}"
                seen += 1
        assert seen == len(tested)

    def test_without_photos_there_are_none(self, run: Run, tmp_path: Path):
        words = ("figure", "embedding", run.folder, "--method", "pca", "--no-photos", "--out", tmp_path / "a.html")
        assert handreid(*words).code == 0
        text = (tmp_path / "a.html").read_text()
        assert "url(data:image" not in text
        assert 'id = "photo"' not in text

    def test_without_photos_none_is_needed(self, own: Run, tested: Looked, tmp_path: Path):
        for name in tested.names:
            (Path(own.facts["manifest"]).parent / name).unlink()
        words = ("figure", "embedding", own.folder, "--method", "pca", "--out", tmp_path / "a.html")
        refused = handreid(*words)
        assert (refused.code, refused.out) == (2, "")
        assert "is missing; run" in refused.err
        assert handreid(*words, "--no-photos").code == 0

    def test_a_projection_does_not_hang_on_the_number_of_threads(self, tested: Looked, monkeypatch: pytest.MonkeyPatch):
        """Sums over threads come in any order; so there is one."""
        seen = []

        def fitted(_: object, points: np.ndarray) -> np.ndarray:
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
            return np.zeros((len(points), 2), np.float32)

        monkeypatch.setattr("sklearn.manifold.TSNE.fit_transform", fitted)
        with threadpool_limits(2):
            projection(tested, "tsne")
        assert set(seen) == {1}
