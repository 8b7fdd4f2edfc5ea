"""Towers in a small file: what is read is what was written, words are known or named, and nobody leaks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import handreid
from handreid.build import build_embedder, build_preprocessing, build_towers
from handreid.data.manifest import read
from handreid.errors import OutputError, ProtocolError, RecipeError, RunError, WeightsError
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

STAGE = (
    "{kind: pretrain, epochs: 1, batch_size: 16, learns: both, terms: [{kind: image_text}],"
    " optimizer: {kind: adamw, lr: 1.0e-3, schedule: {kind: constant}}}"
)
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
