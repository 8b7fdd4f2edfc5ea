"""Towers: equal to open_clip's, at any size, from any kind of file; what does not fit is said."""

import io
import json
import pickle
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from safetensors.torch import save_file

from handreid.errors import WeightsError
from handreid.files import file_hash
from handreid.models import weight_files
from handreid.models.backbone import Backbone
from handreid.models.clip import backbone_names, build_image_tower, load_clip
from handreid.models.tower import feature_widths, image_features

VIT = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
RESNET = VIT | {
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
}


def clip_of(config: dict, seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return open_clip.model.CLIP(**json.loads(json.dumps(config))).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "clip.safetensors"
    save_file(clip_of(VIT).state_dict(), path)
    return path


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_joint_feature_and_text_feature_equal_open_clips(config: dict, tmp_path: Path):
    clip = clip_of(config)
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    towers = load_clip("own", weights=str(tmp_path / "clip.safetensors"), config=config)
    photos = torch.randn(3, 3, config["vision_cfg"]["image_size"], config["vision_cfg"]["image_size"])
    features = image_features(towers.image, photos)
    as_computed = photos.contiguous(memory_format=torch.channels_last) if config is RESNET else photos
    assert torch.equal(features.joint, clip.encode_image(as_computed))
    tokens = open_clip.SimpleTokenizer(context_length=24)(["a hand", "the back of a right hand"])
    assert torch.equal(towers.text.encode(["a hand", "the back of a right hand"]), clip.encode_text(tokens))


def test_a_resnet_computes_channels_last_and_keeps_its_parameters_as_they_are():
    tower = clip_of(RESNET).visual.train()
    optimizer = torch.optim.AdamW(tower.parameters())
    features = image_features(tower, torch.randn(2, 3, 64, 64))
    assert features.patches.is_contiguous()
    features.joint.square().sum().backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert all(value.is_contiguous() for value in [*tower.state_dict().values(), *states])
    assert all(parameter.grad.is_contiguous() for parameter in tower.parameters() if parameter.grad is not None)


def test_other_devices_than_a_cpu_keep_the_photos_format():
    tower = clip_of(RESNET).visual.to("meta").eval()
    assert not image_features(tower, torch.zeros(2, 3, 64, 64, device="meta")).patches.is_contiguous()


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-16-quickgelu", "ViT-B-32", "ViT-L-14", "RN50", "coca_ViT-B-32"])
def test_published_towers_by_construction(name: str):
    with torch.device("meta"):  # shapes without the memory
        towers = load_clip(name)
        features = image_features(towers.image, torch.zeros(2, 3, 224, 224))
    widths = feature_widths(towers.image)
    for feature in ("joint", "pooled", "penultimate"):
        assert getattr(features, feature).shape == (2, widths[feature])
    assert features.patches.shape[0] == 2


def test_the_tiny_tower_is_tiny():
    towers = load_clip("handreid-tiny")
    assert 2e6 < sum(p.numel() for p in towers.image.parameters()) < 4e6
    assert image_features(towers.image, torch.zeros(1, 3, 112, 112)).patches.shape == (1, 8, 8, 192)


def test_every_listed_tower_is_one_we_can_read():
    names = backbone_names()
    assert {"handreid-tiny", "ViT-B-16", "ViT-B-32", "ViT-L-14", "RN50"} <= set(names)
    assert "ViT-B-16-SigLIP" not in names  # timm's


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("size", [(64, 32), (96, 96), (32, 128), (48, 112)])
def test_other_sizes_resize_the_position_embedding(config: dict, size: tuple[int, int]):
    towers = load_clip("own", config=config, image_size=size)
    photos = torch.randn(2, 3, *size)
    backbone = Backbone(towers.image, towers.config)
    assert backbone.size == size
    again = Backbone.from_config(towers.config)
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again.eval()(photos).joint, backbone(photos).joint)


def test_a_grid_of_the_same_number_of_patches_is_resized_too():
    square, wide = load_clip("own", config=VIT), load_clip("own", config=VIT, image_size=(16, 64))  # 16 patches both
    before, after = square.image.positional_embedding, wide.image.positional_embedding
    assert before.shape == after.shape
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1:], after[1:])


def test_sizes_off_the_grid_name_the_nearest():
    with pytest.raises(WeightsError, match=r"30 x 30 .* such as 24 or 32"):
        load_clip("own", config=VIT, image_size=30)


@pytest.mark.parametrize(("size", "stride", "grid"), [(32, 5, (5, 5)), ((32, 47), 3, (9, 14)), ((30, 33), 8, (3, 4))])
def test_patches_overlap_with_a_stride(size: int | tuple[int, int], stride: int, grid: tuple[int, int]):
    towers = load_clip("own", config=VIT, image_size=size, stride=stride)
    backbone = Backbone(towers.image, towers.config)
    photos = torch.randn(2, 3, *backbone.size)
    features = backbone(photos)
    assert backbone.grid == (*grid, 64)
    assert features.patches.shape == (2, *grid, 64)
    assert towers.image.positional_embedding.shape == (1 + grid[0] * grid[1], 64)
    again = Backbone.from_config(json.loads(json.dumps(towers.config)))
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again.eval()(photos).joint, features.joint)
    assert again.grid == backbone.grid


def test_a_stride_as_large_as_the_patch_changes_nothing_and_a_smaller_one_resizes_positions_of_loaded_weights(
    tmp_path: Path,
):
    clip = clip_of(VIT)
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    same, closer = (load_clip("own", weights=str(tmp_path / "w.safetensors"), config=VIT, stride=n) for n in (8, 4))
    photos = torch.randn(2, 3, 32, 32)
    assert torch.equal(image_features(same.image, photos).joint, clip.eval().encode_image(photos))
    assert torch.equal(closer.image.conv1.weight, clip.visual.conv1.weight)
    before, after = clip.visual.positional_embedding, closer.image.positional_embedding
    grid = before[1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, size=(7, 7), mode="bicubic", antialias=True)
    assert torch.allclose(after[1:], resized.flatten(2)[0].T, atol=1e-6)
    assert torch.equal(after[0], before[0])


def test_a_patch_of_an_overlapping_grid_sees_the_pixels_at_its_stride():
    """Without blocks in the way: the convolution alone, place by place; pixels left over at the end are not seen."""
    tower = load_clip("own", config=VIT, image_size=(19, 16), stride=5).image
    photos = torch.randn(1, 3, 19, 16)
    found = tower.conv1(photos)
    assert found.shape[2:] == (3, 2) == tower.grid_size
    patch = photos[0, :, 10:18, 5:13]
    assert torch.allclose(found[0, :, 2, 1], (tower.conv1.weight * patch).sum((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "size", "stride", "message"),
    [
        (VIT, None, 9, "stride is 9, but must be between 1 and the patch size, 8 pixels"),
        (VIT, None, 0, "stride is 0, but must be"),
        (VIT, 6, 4, "image_size 6 x 6 is smaller than a patch of 8"),
        (RESNET, None, 4, "stride is 4, but this tower is a ResNet"),
    ],
)
def test_strides_that_cannot_be(config: dict, size: int | None, stride: int, message: str):
    with pytest.raises(WeightsError, match=message):
        load_clip("own", config=config, image_size=size, stride=stride)


def _openai_archive(clip: torch.nn.Module, path: Path) -> None:
    """What OpenAI published: a TorchScript archive in half precision."""
    for name, value in (("input_resolution", 32), ("context_length", 24), ("vocab_size", 49408)):
        clip.__dict__.pop(name, None)  # open_clip has two of them as plain numbers
        clip.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.trace_module(clip, {"encode_image": torch.zeros(1, 3, 32, 32)}, check_trace=False), str(path)
        )


@pytest.mark.parametrize("kind", ["safetensors", "safetensors.pt", "open_clip", "training", "model", "openai"])
def test_weights_from_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = clip_of(VIT)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    wanted = {k: v.clone() for k, v in clip.state_dict().items()}
    match kind:
        case "safetensors" | "safetensors.pt":
            save_file(clip.state_dict(), path)
        case "open_clip":
            torch.save(clip.state_dict(), path)
        case "training":
            torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in clip.state_dict().items()}}, path)
        case "model":
            torch.save({"args": [1], "model": clip.state_dict()}, path, _use_new_zipfile_serialization=False)
        case "openai":
            _openai_archive(clip, path)
            monkeypatch.setitem(weight_files.OPENAI, "micro", file_hash(path))
    towers = load_clip("own", weights=str(path), config=VIT)
    found = towers.image.state_dict()
    assert all(torch.equal(found[k.removeprefix("visual.")], v) for k, v in wanted.items() if k.startswith("visual."))
    assert towers.config.get("quick_gelu", False) == (kind == "openai")


def test_the_hashes_of_openais_archives_are_those_that_open_clip_has_of_them():
    for name, digest in weight_files.OPENAI.items():
        tag = get_pretrained_cfg(name, "openai")
        assert tag["url"].split("/")[-2] == digest
    addresses = {get_pretrained_cfg(name, "openai").get("url", "") for name in open_clip.list_models()} - {""}
    assert {address.split("/")[-2] for address in addresses} == set(weight_files.OPENAI.values())


class Writes:
    """What a pickle of it does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class _Program(torch.nn.Module):
    """Writes a file when its archive is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.weight, self.path, self.training = state
        torch.save(state[0], state[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.weight


def _program(path: Path, written: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_Program(str(written))).save(str(path))


def _renamed(change: Callable[[str], str]) -> Callable[[Path, Path], None]:
    """The program with its entries under other names."""

    def made(path: Path, written: Path) -> None:
        _program(path.with_suffix(".as-it-was"), written)
        with zipfile.ZipFile(path.with_suffix(".as-it-was")) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(change(name), old.read(name))

    return made


def _in_a_tar(path: Path, written: Path) -> None:
    """As torch wrote them before 2018: a tar with pickles in it."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(Writes(written))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


FOREIGN: dict[str, Callable[[Path, Path], object]] = {
    "a TorchScript archive": _program,
    "one called safetensors": lambda path, written: _program(path.with_suffix(".safetensors"), written),
    "one deeper in its zip": _renamed(lambda name: f"deep/{name}"),
    "one with other letters": _renamed(str.upper),
    "one without constants": _renamed(lambda name: name.replace("constants", "others")),
    "one that calls itself data": _renamed(lambda name: name.replace("constants", "x").replace("code", "data")),
    "a pickle": lambda path, written: path.write_bytes(pickle.dumps(Writes(written))),
    "what torch.save wrote": lambda path, written: torch.save({"state_dict": {"x": Writes(written)}}, path),
    "an old torch.save": lambda path, written: torch.save(
        {"x": Writes(written)}, path, _use_new_zipfile_serialization=False
    ),
    "a tar": _in_a_tar,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_weights_file_runs_no_code(kind: str, tmp_path: Path):
    written = tmp_path / "written"
    FOREIGN[kind](tmp_path / "w.pt", written)
    path = next(one for one in (tmp_path / "w.pt", tmp_path / "w.safetensors") if one.exists())
    with pytest.raises(WeightsError) as error:
        load_clip("own", weights=str(path), config=VIT)
    assert not written.exists()
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)
    assert not any(word in str(error.value) for word in ("weights_only", "trust", "\x1b", "add_safe_globals"))


def test_the_program_of_these_tests_does_write_when_it_is_loaded(tmp_path: Path):
    _program(tmp_path / "w.pt", tmp_path / "written")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(tmp_path / "w.pt"))
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not parameters by name"),
        ({}, "holds nothing, not parameters"),
        ({"a": 3, "b": torch.zeros(1)}, r"more than parameters \(1 other entries, such as 'a', a int\)"),
        ({3: torch.zeros(1)}, "more than parameters"),
        ({"a": torch.eye(2).to_sparse()}, "more than parameters"),
        ({"a": torch.tensor([1.0, float("nan")])}, "hold NaN or infinite numbers"),
    ],
)
def test_files_that_hold_no_parameters(content: object, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        load_clip("own", weights=str(tmp_path / "w.pt"), config=VIT)


def test_a_tag_is_not_a_file_of_its_name(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(saved, "openai")
    monkeypatch.setattr("handreid.models.clip_weights._cached", lambda tag: True)
    monkeypatch.setattr("handreid.models.clip_weights.download_pretrained", lambda tag: "nowhere")
    with pytest.raises(WeightsError, match="nowhere cannot be read"):
        load_clip("ViT-B-32", weights="openai")


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0byte", "~nobody-of-that-name/w.pt", "\x1b[2J"])
def test_names_that_can_be_no_file(name: str):
    with pytest.raises(WeightsError, match="no such file") as error:
        load_clip("own", weights=name, config=VIT)
    assert len(str(error.value)) < 600
    assert "\x1b" not in str(error.value)


def test_half_precision_files_become_fp32_masters(tmp_path: Path):
    save_file({k: v.half() for k, v in clip_of(VIT).state_dict().items()}, tmp_path / "h.safetensors")
    towers = load_clip("own", weights=str(tmp_path / "h.safetensors"), config=VIT)
    assert {p.dtype for p in [*towers.image.parameters(), *towers.text.parameters()]} == {torch.float32}


def test_a_file_made_for_another_size_keeps_its_grid(tmp_path: Path):
    bigger = VIT | {"vision_cfg": VIT["vision_cfg"] | {"image_size": 48}}
    clip = clip_of(bigger)
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    towers = load_clip("own", weights=str(tmp_path / "w.safetensors"), config=VIT)
    assert towers.image.image_size == (48, 48)
    assert torch.equal(towers.image.positional_embedding, clip.visual.positional_embedding)


def test_an_image_tower_alone_loads_when_the_recipe_says_so(tmp_path: Path):
    state = {k: v for k, v in clip_of(VIT).state_dict().items() if k.startswith("visual.")}
    save_file(state, tmp_path / "i.safetensors")
    with pytest.raises(WeightsError, match=r"missing: .*\n.*towers=image"):
        load_clip("own", weights=str(tmp_path / "i.safetensors"), config=VIT)
    towers = load_clip("own", weights=str(tmp_path / "i.safetensors"), config=VIT, towers="image")
    assert torch.equal(towers.image.conv1.weight, state["visual.conv1.weight"])


def test_missing_surplus_and_misshapen_parameters_are_listed(tmp_path: Path):
    state = clip_of(VIT).state_dict()
    state["visual.extra"] = torch.zeros(1)
    state["visual.proj"] = torch.zeros(3, 3)
    del state["visual.ln_post.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as error:
        load_clip("own", weights=str(tmp_path / "w.safetensors"), config=VIT)
    assert "1 missing: visual.ln_post.bias" in str(error.value)
    assert "1 surplus: visual.extra" in str(error.value)
    assert "1 of another shape: visual.proj (3, 3) for (64, 32)" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
def test_unreadable_files_are_one_line(content: bytes, tmp_path: Path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as parameters") as error:
        load_clip("own", weights=str(tmp_path / "w.pt"), config=VIT)
    assert "\n" not in str(error.value)


def test_unknown_names_and_tags():
    with pytest.raises(WeightsError, match="did you mean 'ViT-B-16'"):
        load_clip("ViT-B-17")
    with pytest.raises(WeightsError, match="timm"):
        load_clip("ViT-B-16-SigLIP")
    with pytest.raises(WeightsError, match=r"no tag of RN50; known are openai"):
        load_clip("RN50", weights="opnai")
    with pytest.raises(WeightsError, match="has no pretrained tags"):
        load_clip("handreid-tiny", weights="openai")


def test_a_tag_without_network_names_the_file_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refused(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr("handreid.models.clip_weights._cached", lambda tag: False)
    for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(WeightsError, match=r"model\.backbone\.weights=/path/to/file"):
        load_clip("ViT-B-32", weights="openai")


def test_a_tag_goes_through_open_clips_loader(monkeypatch: pytest.MonkeyPatch, saved: Path):
    """The download itself is open_clip's; here it is told that the file has arrived."""
    tag = {"hf_hub": "timm/some/", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setattr("handreid.models.clip_weights.list_pretrained_tags_by_model", lambda name: ["openai"])
    monkeypatch.setattr("handreid.models.clip_weights.get_pretrained_cfg", lambda name, weights: tag)
    monkeypatch.setattr("handreid.models.clip_weights._cached", lambda tag: True)
    monkeypatch.setattr("handreid.models.clip_weights.download_pretrained", lambda tag: str(saved))
    monkeypatch.setattr("handreid.models.clip.clip_config", lambda name, given: json.loads(json.dumps(VIT)))
    towers = load_clip("ViT-B-32", weights="openai")
    assert towers.config["quick_gelu"] is True
    assert torch.equal(towers.image.conv1.weight, clip_of(VIT).visual.conv1.weight)


def test_configs_from_a_file_and_their_errors(tmp_path: Path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(VIT))
    assert feature_widths(load_clip("own", config=path).image)["joint"] == 32
    path.write_text("{")
    with pytest.raises(WeightsError, match="line 1 is not JSON"):
        load_clip("own", config=path)
    path.write_text('{"embed_dim": 3}')
    with pytest.raises(WeightsError, match="lacks text_cfg, vision_cfg"):
        load_clip("own", config=path)
    for content in (b"\xff\xfe", b"[" * 100_000, b"1" * 5_000, b'{"model_cfg": 3}', b"[]"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"own\.json (is not JSON|holds)"):
            load_clip("own", config=path)
    for part, value, message in (
        ("vision_cfg", 3, "vision_cfg is 3, not an object"),
        ("vision_cfg", {"layers": -1, "width": "wide"}, "cannot be built"),
        ("text_cfg", {"hf_model_name": "some/model"}, "would download a model by name"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_clip("own", config=VIT | {part: value})
    wrong = VIT | {"vision_cfg": {"width": 64, "no_such": 1}}
    with pytest.raises(WeightsError, match="cannot be built"):
        load_clip("own", config=wrong)


def test_random_towers_are_seeded_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (load_clip("own", config=VIT, seed=seed).image.proj for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_saved_image_tower_needs_no_text_vocabulary():
    tower = build_image_tower(load_clip("own", config=VIT).config)
    assert not any("token_embedding" in name for name in tower.state_dict())
