"""The weights inside the package: a tag, a model in the place of a run, and a file that is there."""

import shutil
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import handreid
from handreid.build import NORMALISATIONS
from handreid.cli.ladder import SMALL_LADDER, TINY_LADDER, _rung
from handreid.data.manifest import read
from handreid.errors import RunError, WeightsError
from handreid.files import read_json
from handreid.models import embedded_weights
from handreid.models.clip import backbone_names, clip_config, load_clip
from handreid.models.embedder import Embedder
from handreid.models.exported_towers import TowerFacts, exported_facts, save_exported
from handreid.models.known_words import unknown_words
from handreid.recipe import parse_recipe
from handreid.training.train import train
from handreid.types import Preprocessing
from tests.cli.test_commands import complaint
from tests.cli.test_commands import handreid as command
from tests.conftest import MICRO_RECIPE

LARGEST = 12_000_000  # bytes of the file in the package
SMALL = "model.backbone={name: handreid-small, weights: handreid}"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random towers of handreid-small at 32 pixels, which know two words."""
    towers = load_clip("handreid-small", image_size=32)
    state = {f"visual.{name}": value for name, value in towers.image.state_dict().items()}
    ids = torch.tensor(towers.text.pieces("left palm")).sort().values
    stated = {"recipe": "made", "seed": 0, "epochs": (), "handreid": "0", "manifest_hash": "", "photos_hash": ""}
    reading = Preprocessing((32, 32), *NORMALISATIONS["clip"])
    facts = TowerFacts(**stated, config=towers.config, preprocessing=reading, seen=())
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
        for name in (*SMALL_LADDER, *TINY_LADDER):
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
