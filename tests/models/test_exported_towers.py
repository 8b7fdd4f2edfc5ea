"""Towers in a small file, and those in the package: what is read is what was written, and nobody leaks."""

import json
import shutil
import socket
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import handreid
from handreid.build import build_embedder, build_preprocessing, build_towers
from handreid.data.manifest import read
from handreid.errors import OutputError, ProtocolError, RecipeError, RunError, WeightsError
from handreid.files import read_json
from handreid.models import embedded_weights
from handreid.models.clip import backbone_names, clip_config, load_clip
from handreid.models.embedder import Embedder
from handreid.models.exported_towers import exported_facts, read_exported, save_exported
from handreid.models.known_words import unknown_words
from handreid.models.prompts import nearest_words, whole_words
from handreid.recipe import Recipe, parse_recipe
from handreid.runs.dataset import load_dataset
from handreid.runs.exported_exposure import people_seen
from handreid.runs.exposure import exposure_of, read_record
from handreid.runs.folder import Run
from handreid.runs.leakage import check_exported
from handreid.runs.pretrained_weights import towers_of
from handreid.training.train import train
from handreid.workflows.export_towers import export_towers
from handreid.workflows.package_texts import package_texts
from tests.cli.test_commands import complaint
from tests.cli.test_commands import handreid as command
from tests.conftest import MICRO_RECIPE

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

LARGEST = 12_000_000  # bytes of the file in the package
STAGE = (
    "{kind: pretrain, epochs: 1, batch_size: 16, learns: both, terms: [{kind: image_text}],"
    " optimizer: {kind: adamw, lr: 1.0e-3, schedule: {kind: constant}}}"
)
SMALL = "model.backbone={name: handreid-small, weights: handreid}"
WORDS = ("a photo of the palm of a left hand", "the back of a right hand on stone")


def recipe_of(weights: object, stages: str = "[]", *overrides: str) -> Recipe:
    return parse_recipe(MICRO_RECIPE, "micro", [f"stages={stages}", f"model.backbone.weights={weights}", *overrides])


@pytest.fixture(scope="module")
def hands(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with captions, in a folder that says that they are rendered, from the seed 7."""
    return rendered_from(7, photos, tmp_path_factory.mktemp("hands"))


def rendered_from(seed: int, photos: Path, folder: Path, people: int = 12) -> Path:
    shutil.copytree(photos.parent, folder / "photos")
    made = read(photos)
    captions = pl.Series("caption", [WORDS[row % 2] for row in range(len(made))])
    table = made.table.with_columns(captions).head(4 * people)
    path = folder / "photos" / "captioned.parquet"
    replace(made, table=table, root=folder / "photos", dataset="csv").write(path)
    (folder / "photos" / "rendered.json").write_text(json.dumps({"renderer": 1, "seed": seed}))
    return path


@pytest.fixture(scope="module")
def run(hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe_of("none", f"[{STAGE}]"), hands, tmp_path_factory.mktemp("runs") / "pre")


@pytest.fixture(scope="module")
def file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "small.safetensors"
    called = command("export", "towers", run.folder, "--out", out)
    assert called.code == 0
    assert "both towers" in called.out
    return out


@pytest.fixture(scope="module")
def small(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random towers of handreid-small at 32 pixels, which know two words."""
    towers = load_clip("handreid-small", image_size=32)
    state = {f"visual.{name}": value for name, value in towers.image.state_dict().items()}
    ids = torch.tensor(towers.text.pieces("left palm")).sort().values
    facts = exported_facts(file).model_copy(update={"config": towers.config})
    out = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_exported(out, state | towers.text.clip.state_dict(), ids, torch.tensor([True, True]), facts)
    return out


@pytest.fixture
def package(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That file as if it were the one in the package, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(embedded_weights, "FILE", small)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    return small


def features(recipe: Recipe, photos: torch.Tensor, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    towers = build_towers(recipe)
    embedder = build_embedder(recipe, towers)
    with torch.inference_mode():
        return embedder.embed(photos), towers.text.encode(texts)


class TestTheFile:
    def test_features_are_those_of_the_run_to_float16(self, run: Run, file: Path):
        photos = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
        texts = [*WORDS, *package_texts()]
        pairs = [features(recipe_of(weights), photos, texts) for weights in (run.folder, file)]
        for of_run, of_file in zip(*pairs, strict=True):
            assert F.cosine_similarity(of_run, of_file).min() > 0.9999
        assert file.stat().st_size < LARGEST
        stored = load_file(file)
        assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}
        assert len(stored["token_embedding.weight"]) == len(stored["token_ids"]) < 500

    def test_the_table_is_complete_and_tokens_that_were_never_read_are_zeros(self, run: Run, file: Path):
        exported, whole = read_exported(file), load_file(run.towers)["token_embedding.weight"]
        assert exported is not None
        table = exported.state["token_embedding.weight"]
        assert table.shape == whole.shape
        text = build_towers(recipe_of(file)).text
        (stone,), (lace,) = text.pieces("stone"), text.pieces("lace")
        assert torch.allclose(table[stone], whole[stone], atol=1e-3)
        assert not table[lace].any()
        assert bool(exported.seen[stone])
        assert not exported.seen[lace]
        assert torch.isfinite(text.encode(["a lace glove", ""])).all()

    def test_only_known_words_are_the_nearest(self, file: Path):
        text = build_towers(recipe_of(file)).text
        words = {text.word(token).strip() for token in whole_words(text)}
        assert words == {word for sentence in WORDS for word in sentence.split() if len(word) > 2}
        near = nearest_words(text, torch.randn(3, 32), 2)
        assert {text.word(int(token)).strip() for token in near.flatten()} <= words
        with pytest.raises(RecipeError, match="the text tower knows only"):
            nearest_words(text, torch.randn(3, 32), 40)

    def test_unknown_words_are_named_and_those_of_captions_are_learned(
        self, file: Path, hands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        text = build_towers(recipe_of(file)).text
        assert unknown_words(text, ["A photo of a velvet hand.", "Stone, lace"]) == ["lace", "velvet"]
        made = read(hands)
        words = made.table.with_columns(pl.lit("a velvet hand").alias("caption"))
        replace(made, table=words, root=hands.parent).write(hands.parent / "velvet.parquet")
        # validated and tested people are the same as before, so nobody leaks
        child = train(
            recipe_of(file, f"[{STAGE}]", "evaluate.prompts={templates: ['a {aspect} {side} hand of lace']}"),
            hands.parent / "velvet.parquet",
            tmp_path / "child",
        )
        learned = towers_of(child).text
        assert unknown_words(learned, ["velvet lace"]) == ["lace"]
        export_towers(child, tmp_path / "again.safetensors")
        assert unknown_words(build_towers(recipe_of(tmp_path / "again.safetensors")).text, ["velvet lace"]) == ["lace"]

    def test_metadata_say_where_it_comes_from(self, run: Run, file: Path):
        facts = exported_facts(file)
        assert (facts.recipe, facts.seed, facts.epochs) == ("micro", 0, (1,))
        assert (facts.manifest_hash, facts.handreid) == (run.facts["manifest_hash"], handreid.__version__)
        (seen,) = facts.seen
        (own,) = read_record(run)
        assert seen.dataset == "rendered-7"
        assert {*seen.train, *seen.validation} == {photo.subject for photo in own.photos}

    def test_another_normalisation_is_refused(self, file: Path):
        with pytest.raises(RecipeError, match="use 'clip'"):
            build_preprocessing(recipe_of(file, "[]", "model.preprocess.normalise=half"), (32, 32))


class TestExporting:
    def test_only_its_own_kind_is_overwritten(self, run: Run, file: Path, tmp_path: Path):
        again = tmp_path / "again.safetensors"
        shutil.copy(file, again)
        export_towers(run, again)
        assert again.read_bytes() == file.read_bytes()
        shutil.copy(run.model, again)
        with pytest.raises(OutputError, match="does not hold exported towers"):
            export_towers(run, again)
        assert again.read_bytes() == run.model.read_bytes()
        assert "the suffix must be .safetensors" in complaint(
            "export", "towers", run.folder, "--out", tmp_path / "x.pt"
        )

    def test_a_run_without_both_towers_is_refused(self, photos: Path, tmp_path: Path):
        plain = train(recipe_of("none"), photos, tmp_path / "plain")
        with pytest.raises(RunError, match="only runs with a stage `pretrain`"):
            export_towers(plain, tmp_path / "x.safetensors")
        assert not (tmp_path / "x.safetensors").exists()

    def test_a_changed_file_is_not_read(self, file: Path, tmp_path: Path):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        (tmp_path / "changed.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match="was changed, damaged or only partly copied"):
            build_towers(recipe_of(tmp_path / "changed.safetensors"))


class TestLeaks:
    def test_rendered_people_of_the_same_seed_are_not_tested(self, file: Path, hands: Path, tmp_path: Path):
        """Another split of the same people; the folder is another one, so that only seed and names are the same."""
        other = rendered_from(7, hands.parent / "manifest.parquet", tmp_path, people=11)
        with pytest.raises(ProtocolError, match=r"rendered people .* render others, with another --seed"):
            train(recipe_of(file, "[]", "data.seed=5"), other, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_people_of_another_seed_and_real_ones_are_others(self, file: Path, photos: Path, tmp_path: Path):
        recipe = recipe_of(file, "[]", "data.seed=5")
        other = rendered_from(8, photos, tmp_path, people=11)
        assert check_exported(file, load_dataset(recipe, other)) == []
        made = train(recipe, photos, tmp_path / "real")
        assert [exposure.dataset for exposure in read_record(made)] == ["folders", "rendered-7"]

    def test_copies_of_rendered_photos_without_their_seed_count_as_seen(self, file: Path, hands: Path, tmp_path: Path):
        path = rendered_from(7, hands, tmp_path, people=11)
        (path.parent / "rendered.json").unlink()
        made = read(path)
        columns = {name: pl.lit("none") for name in ("skin_tone", "ring_finger", "sleeve", "pose", "moles", "scar")}
        replace(made, table=made.table.with_columns(**columns)).write(path)
        with pytest.raises(ProtocolError, match="rendered people"):
            check_exported(file, load_dataset(recipe_of(file, "[]", "data.seed=5"), path))

    def test_of_real_people_there_are_no_names(self, file: Path, photos: Path, tmp_path: Path):
        material = load_dataset(recipe_of("none"), photos)
        (seen,) = people_seen([exposure_of(material)], {})
        assert (seen.train, seen.validation) == ((), ())
        exported, path = read_exported(file), tmp_path / "real.safetensors"
        assert exported is not None
        ids = exported.seen.nonzero()[:, 0]
        facts = exported.facts.model_copy(update={"seen": (seen,)})
        save_exported(path, exported.state, ids, exported.seen[ids], facts)
        (note,) = check_exported(path, material)
        assert f"trained on {seen.subjects} people whose names are not in it" in note


class TestInThePackage:
    def test_the_backbone_is_known(self):
        assert "handreid-small" in backbone_names()
        assert isinstance(clip_config("handreid-small")["vision_cfg"]["layers"], list)

    def test_the_tag_wins_over_a_file_and_needs_no_network(
        self, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        Path("handreid").write_text("not weights")
        towers = load_clip("handreid-small", weights="handreid")
        assert torch.equal(towers.image.conv1.weight, load_file(package)["visual.conv1.weight"].float())
        assert unknown_words(towers.text, ["Left, right."]) == ["right"]

    @pytest.mark.parametrize("folder", [False, True], ids=["nothing", "a folder of that name"])
    def test_another_backbone_is_told_whose_they_are(
        self, folder: bool, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        if folder:
            Path("handreid").mkdir()
        with pytest.raises(WeightsError, match=r"those of the backbone handreid-small, not of 'handreid-tiny'"):
            load_clip("handreid-tiny", weights="handreid")

    def test_an_installation_without_them_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(embedded_weights, "FILE", tmp_path / "none.safetensors")
        with pytest.raises(WeightsError, match="not in this installation"):
            load_clip("handreid-small", weights="handreid")

    def test_a_run_notes_which_they_were(self, package: Path, photos: Path, tmp_path: Path, monkeypatch: Any):
        made = train(parse_recipe(MICRO_RECIPE, "small", ["stages=[]", SMALL]), photos, tmp_path / "run")
        assert read_json(made.folder / "run.json")["weights_hash"]
        newer = tmp_path / "newer.safetensors"
        shutil.copy(made.model, newer)
        monkeypatch.setattr(embedded_weights, "FILE", newer)
        with pytest.raises(RunError, match="restore the version of handreid that had it"):
            train(None, None, made.folder, resume=True)

    def test_photos_are_embedded_without_a_run(self, package: Path, photos: Path, tmp_path: Path):
        files = read(photos).paths()[:3]
        embedder = Embedder.load("handreid")
        embeddings = handreid.embed("handreid", files)
        assert embeddings.shape == (3, embedder.dim)
        assert np.allclose(embeddings, handreid.embed(embedder, files), atol=1e-6)
        for given in ([str(path) for path in files], ["--data", str(photos)]):
            called = command("embed", "handreid", *given, "--out", tmp_path / "e.parquet")
            assert called.code == 0, called.err
            table = pl.read_parquet(tmp_path / "e.parquet").head(3)
            assert np.allclose(np.stack(table["embedding"].to_list()), embeddings, atol=1e-5)
        assert "give PHOTOS, or --data" in complaint("embed", "handreid", "--out", tmp_path / "x.parquet")

    def test_every_rung_of_its_ladder_has_the_weights(self, package: Path):
        from handreid.cli.ladder import TINY_LADDER, _rung

        for name in TINY_LADDER:
            backbone = _rung(name, "handreid", ()).model.backbone
            assert (backbone.name, backbone.weights, backbone.config) == ("handreid-small", "handreid", None)


class TestShipped:
    """The file that the package has."""

    def test_it_is_valid_small_and_of_this_backbone(self):
        path = embedded_weights.embedded_file()
        assert path.stat().st_size <= LARGEST
        towers, facts = load_clip("handreid-small", weights="handreid"), exported_facts(path)
        assert towers.config | {"quick_gelu": False} == clip_config("handreid-small") | {"quick_gelu": False}
        assert all(one.dataset.startswith("rendered-") and one.train for one in facts.seen)
        assert unknown_words(towers.text, ["the back of a left hand", "the palm of a right hand"]) == []
        card = (path.parent / "MODEL_CARD.md").read_text()
        assert facts.recipe in card
        assert "TODO" not in card
        embedder = Embedder.load("handreid")
        photos = torch.randint(0, 256, (2, 3, *embedder.preprocessing.size), dtype=torch.uint8)
        assert torch.isfinite(embedder.embed(photos)).all()

    def test_the_wheel_holds_all_files_of_the_package(self):
        """Hatch takes what is below `packages` and what git does not ignore, as long as nothing is left out."""
        root = Path(__file__).parents[2]
        build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
        assert build == {"targets": {"wheel": {"packages": ["src/handreid"]}}}
        file = root / "src/handreid/models/embedded/handreid.safetensors"
        ignored = subprocess.run(["git", "check-ignore", "-q", file], cwd=root, check=False)
        assert ignored.returncode == 1
