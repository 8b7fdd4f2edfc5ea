"""Maps of what a model looked at: against loops and closed forms, where a mark is, and as figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from handreid.errors import DataError, WeightsError
from handreid.evaluation.embed import select_photos
from handreid.explain.grad_cam import grad_cam
from handreid.explain.occlusion import _windows, occlude, occlusion_map, tiling
from handreid.explain.rollout import attention_flow, rollout
from handreid.explain.saliency import CAVEATS, _cover, _strongest, caveat, match_maps, saliency
from handreid.models.backbone import Backbone
from handreid.models.clip import build_image_tower, resize_input
from handreid.models.embedder import Embedder
from handreid.models.lora import add_lora
from handreid.models.tower import attention_weights
from handreid.recipe import parse_recipe
from handreid.report.figures.match_map import match_figure
from handreid.report.figures.overlay import enlarged, overlay
from handreid.report.figures.saliency_map import attention_figure
from handreid.report.photos.lookup import choose, find
from handreid.report.photos.model_input import model_input_image
from handreid.runs.dataset import load_dataset
from handreid.runs.folder import Run, open_run
from handreid.training.train import train
from handreid.types import Preprocessing
from tests.cli.test_commands import complaint, handreid
from tests.conftest import MICRO_RECIPE
from tests.models.test_heads import RESNET, TEXT, VIT
from tests.plain_results import evaluated

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*", "ignore:.*in eval mode at the start.*"
)

HEADS = {
    "plain": {"kind": "linear"},
    "bnneck": {"kind": "bnneck"},
    "mlp": {"kind": "mlp", "hidden": 16, "width": 16},
    "pcb": {"kind": "pcb", "stripes": 2, "width": 8},
    "mgn": {"kind": "mgn", "width": 8},
    "gem": {"kind": "gem", "power": 3.0},
    "attention": {"kind": "attention", "heads": 2},
}
PARTS = ("pcb", "mgn", "gem", "attention")
VISION = {"vit": VIT, "resnet": RESNET | {"image_size": 128}}


def embedder(
    tower: str = "vit",
    head: str = "plain",
    *,
    features: tuple = ("joint",),
    size: tuple[int, int] | None = None,
    stride: int | None = None,
    **added: dict,
) -> Embedder:
    torch.manual_seed(0)
    config = {"embed_dim": 32, "vision_cfg": VISION[tower], "text_cfg": TEXT}
    visual = build_image_tower(config)
    if size or stride:
        resize_input(visual, size or visual.image_size, stride)
    backbone = Backbone(visual, config, **added)
    necks = features if head in ("bnneck", "mlp") else ()
    tested = ("parts",) if head in PARTS else features
    made = Embedder(
        backbone,
        Preprocessing(backbone.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        head=HEADS[head],
        features=features,
        necks=necks,
        test_features=tested,
        test_neck="after" if necks else "before",
    )
    return made.eval()


def noise(model: Embedder, count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *model.backbone.size), generator=generator, dtype=torch.uint8)


def marked(model: Embedder, *cells: tuple[int, int]) -> Tensor:
    """Grey photos, each with a mark that fills one cell of the tiling."""
    rows, cols = tiling(model)
    photos = torch.full((len(cells), 3, *model.backbone.size), 127, dtype=torch.uint8)
    tall, wide = photos.shape[2] // rows, photos.shape[3] // cols
    for photo, (row, col) in zip(photos, cells, strict=True):
        place = photo[:, row * tall : (row + 1) * tall, col * wide : (col + 1) * wide]
        place[:] = torch.randint(0, 256, place.shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return photos


def place_of(values: np.ndarray) -> tuple[int, int]:
    row, col = np.unravel_index(int(np.argmax(values)), values.shape)
    return int(row), int(col)


def random_weights(blocks: int, tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, tokens, tokens, generator=generator).softmax(dim=2) for _ in range(blocks)]


class TestRollout:
    def test_it_is_its_definition(self):
        weights = random_weights(3, 5)
        for photo in range(2):
            rolled = torch.eye(5)
            for block in weights:
                mixed = torch.zeros(5, 5)
                for i in range(5):
                    for j in range(5):
                        mixed[i, j] = 0.5 * block[photo, i, j] + (0.5 if i == j else 0.0)
                    mixed[i] /= mixed[i].sum()
                rolled = mixed @ rolled
            torch.testing.assert_close(attention_flow(weights)[photo], rolled)

    @pytest.mark.parametrize("renewed", [1, 2, 3])
    def test_what_comes_from_prompts_leads_nowhere(self, renewed: int):
        """A loop over all paths from the last tokens to the first, without those that end in a prompt."""
        weights, prompts = random_weights(3, 5), (1, 2)
        steps = [0.5 * block[0] + 0.5 * torch.eye(5) for block in weights]
        drawn = torch.zeros(5, 5)

        def walk(end: int, token: int, depth: int, share: float) -> None:
            if depth < 0:
                drawn[end, token] += share
                return
            for source in range(5):
                made_new = source in prompts and 0 < depth < renewed
                if not made_new:
                    walk(end, source, depth - 1, share * steps[depth][token, source].item())

        for end in range(5):
            walk(end, end, 2, 1.0)
        torch.testing.assert_close(attention_flow(weights, prompts=2, renewed=renewed)[0], drawn[:, [0, 3, 4]])

    @pytest.mark.parametrize("depth", [None, "shallow", "deep"])
    def test_even_attention_gives_a_flat_map(self, depth: str | None):
        added = {} if depth is None else {"visual_prompts": {"tokens": 3, "depth": depth, "dropout": 0.0}}
        model = embedder(**added)
        for block in model.backbone.visual.transformer.resblocks:
            block.attn.in_proj_weight.data[: 2 * VIT["width"]] = 0
            block.attn.in_proj_bias.data[: 2 * VIT["width"]] = 0
        maps, _ = saliency(model, noise(model))
        assert maps.shape == (2, 4, 4)
        np.testing.assert_allclose(maps, 1, rtol=1e-5)

    def test_the_weights_are_the_blocks_own(self):
        model = embedder()
        visual = model.backbone.visual
        inputs = []
        first = visual.transformer.resblocks[0]
        hook = first.attn.register_forward_hook(lambda module, given, made: inputs.append(given[0]))
        with torch.no_grad(), attention_weights(visual) as found:
            model(noise(model))
        hook.remove()
        query, key, _ = F.linear(inputs[0], first.attn.in_proj_weight, first.attn.in_proj_bias).chunk(3, dim=2)
        loop = torch.zeros(2, 17, 17)
        for head in range(2):
            q, k = (of[..., 32 * head : 32 * head + 32] for of in (query, key))
            loop += (q @ k.transpose(1, 2) / 32**0.5).softmax(dim=2) / 2
        assert len(found) == VIT["layers"]
        torch.testing.assert_close(found[0], loop.detach(), rtol=1e-4, atol=1e-5)

    def test_it_starts_from_the_tokens_that_are_compared(self):
        model = embedder(head="gem")
        photos = noise(model)
        with torch.no_grad(), attention_weights(model.backbone.visual) as weights:
            model(photos)
        expected = attention_flow(weights)[:, 1:, 1:].mean(dim=1)
        torch.testing.assert_close(rollout(model, photos).flatten(1), expected / expected.sum(dim=1, keepdim=True))
        assert not torch.allclose(rollout(embedder(), photos), rollout(model, photos), atol=1e-3)
        assert not torch.allclose(
            rollout(embedder(), photos), rollout(embedder(features=("penultimate",)), photos), atol=1e-4
        )

    def test_a_token_that_alone_is_looked_at_lights_up(self, monkeypatch: pytest.MonkeyPatch):
        """The class token draws on patch 6 alone, row 1 and column 2 of a grid of 4 x 4."""
        model = embedder()
        looking = torch.eye(17).expand(1, -1, -1).clone()
        looking[0, 0] = 0
        looking[0, 0, 1 + 6] = 1
        for block in model.backbone.visual.transformer.resblocks:
            monkeypatch.setattr(block.attn, "forward", lambda q, k, v, **named: (torch.zeros_like(q), looking))
        assert place_of(saliency(model, noise(model, 1))[0][0]) == (1, 2)

    def test_a_resnet_has_none(self):
        model = embedder("resnet")
        with pytest.raises(WeightsError, match="rollout needs a ViT"):
            saliency(model, noise(model), method="rollout")


class TestGradCam:
    def test_of_a_mean_it_is_each_places_product_with_the_embedding(self):
        """The embedding is the mean of the last map: then Grad-CAM has a closed form."""
        model = embedder("resnet", features=("pooled",))
        photos = noise(model)
        with torch.no_grad():
            patches = model(photos).features.patches
        own = F.normalize(patches.mean((1, 2)), dim=1)
        places = patches.shape[1] * patches.shape[2]
        torch.testing.assert_close(grad_cam(model, photos), torch.einsum("nrcw,nw->nrc", patches, own).relu() / places)
        other = own.flip(0)
        expected = torch.einsum("nrcw,nw->nrc", patches, other).relu() / places
        torch.testing.assert_close(grad_cam(model, photos, towards=other), expected)

    @pytest.mark.parametrize("features", [("joint",), ("pooled", "joint"), ("penultimate",)])
    @pytest.mark.parametrize("tower", ["vit", "resnet"])
    def test_something_is_seen(self, tower: str, features: tuple):
        """The cosine of an embedding to itself would have no gradient."""
        model = embedder(tower, features=features)
        maps, _ = saliency(model, noise(model), method="grad-cam")
        assert maps.min() >= 0
        assert (maps.max(axis=(1, 2)) == 1).all()
        assert maps.std() > 0.01

    @pytest.mark.parametrize("cell", [(1, 2), (6, 5)])
    def test_a_mark_lights_up(self, cell: tuple[int, int]):
        model = embedder("resnet", features=("pooled",))
        maps, words = saliency(model, marked(model, cell))
        assert place_of(maps[0]) == (cell[0] // 2, cell[1] // 2)  # places of 32 pixels
        assert "Grad-CAM" in words


class TestOcclusion:
    @pytest.mark.parametrize("window", [1, 2, 3])
    def test_every_cell_is_in_as_many_windows(self, window: int):
        windows = _windows(4, 6, window)
        assert (windows.sum(axis=0) == window**2).all()
        assert windows.any(axis=(1, 2)).all()
        assert len(windows) == (4 + window - 1) * (6 + window - 1)

    def test_a_cell_is_worth_what_goes_with_it(self):
        model = embedder()
        photo = noise(model, 1)
        own, parts = occlusion_map(model, photo[0], window=1)
        for row in range(4):
            for col in range(4):
                cells = np.zeros((1, 4, 4), bool)
                cells[0, row, col] = True
                without = model.embed(occlude(photo, cells))[0].double().numpy()
                np.testing.assert_allclose(parts[row, col], own - without, atol=1e-6)

    @pytest.mark.parametrize("fill", ["blur", "mean"])
    def test_only_chosen_cells_are_blanked_and_by_the_photos_own_colours(self, fill):
        model = embedder()
        photo = noise(model, 1)
        cells = np.zeros((1, 4, 4), bool)
        cells[0, 1, 2] = True
        changed = occlude(photo, cells, fill=fill)
        same = (changed == photo).all(dim=1)[0]
        assert same[8:16, 16:24].float().mean() < 0.1
        same[8:16, 16:24] = True
        assert same.all()
        inside = changed[0, :, 8:16, 16:24].float()
        assert inside.std((1, 2)).max() < 8
        torch.testing.assert_close(inside.mean((1, 2)), photo[0].float().mean((1, 2)), atol=12, rtol=0)
        plain = torch.full_like(photo, 200)
        assert (occlude(plain, cells, fill=fill) == plain).all()

    @pytest.mark.parametrize("tower", ["vit", "resnet"])
    def test_a_mark_lights_up(self, tower: str):
        model = embedder(tower, features=("pooled",))
        maps, words = saliency(model, marked(model, (1, 2), (3, 0)), method="occlusion")
        assert [place_of(one) for one in maps] == [(1, 2), (3, 0)]
        assert "occlusion" in words


class TestMatch:
    @pytest.mark.parametrize("tower", ["vit", "resnet"])
    def test_what_two_photos_share_lights_up_in_both_and_is_joined(self, tower: str):
        model = embedder(tower, features=("pooled",))
        if tower == "vit":  # one position for all: it knows of no places, and the photos are one to it
            model.backbone.visual.positional_embedding.data[:] = torch.linspace(-1, 1, VIT["width"])
        left, right = marked(model, (0, 1), (2, 3))
        match = match_maps(model, left, right)
        own = model.embed(torch.stack([left, right]))
        assert match.similarity == pytest.approx((own[0] @ own[1]).item(), abs=1e-6)
        assert (place_of(match.left), place_of(match.right)) == ((0, 1), (2, 3))
        assert match.pairs[0][:2] == ((0, 1), (2, 3))

    def test_a_pair_is_what_the_similarity_has_only_with_both(self):
        model = embedder()
        left, right = noise(model)
        one, other = (occlusion_map(model, photo, window=1)[1] for photo in (left, right))
        cells = np.zeros((1, 4, 4), bool)
        cells[0, 2, 1] = True
        x, y = (model.embed(photo[None])[0].double() for photo in (left, right))
        without_x, without_y = (model.embed(occlude(photo[None], cells))[0].double() for photo in (left, right))
        mixed = x @ y - without_x @ y - x @ without_y + without_x @ without_y
        assert one[2, 1] @ other[2, 1] == pytest.approx(mixed.item(), abs=1e-6)

    def test_pairs_are_strongest_first_and_apart(self):
        rng = np.random.default_rng(0)
        pairs = _strongest(rng.random((5, 6, 3)), rng.random((5, 6, 3)))
        strengths = [strength for _, _, strength in pairs]
        assert 1 < len(pairs) <= 6
        assert strengths == sorted(strengths, reverse=True)
        assert all(
            max(abs(a[side][0] - b[side][0]), abs(a[side][1] - b[side][1])) > 1
            for n, a in enumerate(pairs)
            for b in pairs[:n]
            for side in (0, 1)
        )
        assert _strongest(-np.ones((2, 2, 1)), np.ones((2, 2, 1))) == ()

    def test_mirrored_as_it_is_evaluated(self):
        model = embedder()
        left, right = noise(model)
        own = model.embed(torch.stack([left, right]), flip_tta=True)
        match = match_maps(model, left, right, flip_tta=True)
        assert match.similarity == pytest.approx((own[0] @ own[1]).item(), abs=1e-6)


class TestAllModels:
    @pytest.mark.parametrize("method", ["auto", "grad-cam", "occlusion"])
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("tower", ["vit", "resnet"])
    def test_every_head_leaves_a_map_and_the_model_as_it_was(self, tower: str, head: str, method):
        model = embedder(tower, head, size=(96, 64) if tower == "resnet" else None).train()
        model.backbone.freeze(1)
        before = {
            name: (value.clone(), value.requires_grad) for name, value in model.state_dict(keep_vars=True).items()
        }
        with torch.inference_mode():  # as a caller may
            maps, _ = saliency(model, noise(model, 3), method=method, batch_size=2)
        assert maps.shape[0] == 3
        assert np.isfinite(maps).all()
        assert maps.min() >= 0
        assert maps.max() == 1
        assert model.training
        after = model.state_dict(keep_vars=True)
        assert all(
            (after[name] == value).all() and after[name].requires_grad == asked
            for name, (value, asked) in before.items()
        )
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    @pytest.mark.parametrize("method", ["rollout", "grad-cam", "occlusion"])
    def test_a_batch_changes_no_map(self, method):
        model = embedder()
        photos = noise(model, 3)
        together, alone = (saliency(model, photos, method=method, batch_size=size)[0] for size in (16, 1))
        np.testing.assert_allclose(together, alone, atol=1e-3)

    @pytest.mark.parametrize("depth", ["shallow", "deep"])
    def test_prompts_are_no_places(self, depth: str):
        model = embedder(visual_prompts={"tokens": 3, "depth": depth, "dropout": 0.0})
        photos = noise(model)
        assert rollout(model, photos).sum((1, 2)).tolist() == pytest.approx([1, 1])
        for method in ("rollout", "grad-cam", "occlusion"):
            assert saliency(model, photos, method=method)[0].shape == (2, 4, 4)

    def test_of_another_shape_and_with_overlapping_patches(self):
        model = embedder(size=(44, 20), stride=4)
        assert model.backbone.grid[:2] == (10, 4)
        for method, shape in {"rollout": (10, 4), "grad-cam": (10, 4), "occlusion": (5, 2)}.items():
            assert saliency(model, noise(model), method=method)[0].shape == (2, *shape)

    def test_patches_that_overlap_are_shared_out_by_pixels(self):
        cover = _cover(46, 10, 8, 4)  # what is left at the end is not seen
        edges = np.arange(4600) // 460
        for cell in range(10):
            pixels = np.flatnonzero(edges == cell) / 100
            inside = np.array([((pixels >= 4 * n) & (pixels < 4 * n + 8)).sum() for n in range(10)])
            np.testing.assert_allclose(cover[cell], inside / inside.sum(), atol=0.01)
        np.testing.assert_allclose(_cover(32, 4, 8, 8), np.eye(4))

    def test_side_information_is_taken(self):
        side = {"columns": ["camera"], "strength": 50.0, "combinations": [["a"], ["b"]]}
        model = embedder(side_information=side)
        photos = noise(model, 1)
        for method in ("rollout", "grad-cam", "occlusion"):
            one, other = (saliency(model, photos, torch.tensor([n]), method=method)[0] for n in (0, 1))
            assert not np.allclose(one, other, atol=1e-4)
        own = model.embed(photos, torch.tensor([0]))[0] @ model.embed(photos, torch.tensor([1]))[0]
        match = match_maps(model, photos[0], photos[0], torch.tensor([0, 1]))
        assert match.similarity == pytest.approx(own.item(), abs=1e-6)

    def test_low_rank_changes_are_seen(self):
        model = embedder()
        photos = noise(model)
        before = rollout(model, photos)
        add_lora(model.backbone.visual, rank=2, alpha=2.0, layers=("attention",))
        torch.testing.assert_close(rollout(model, photos), before)
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter.data.normal_()
        assert not torch.allclose(rollout(model, photos), before, atol=1e-3)

    def test_what_it_is_not_is_said_of_each(self):
        vit, resnet = embedder(), embedder("resnet")
        assert (caveat(vit, "auto"), caveat(resnet, "auto")) == (CAVEATS["rollout"], CAVEATS["grad-cam"])
        assert caveat(vit, "grad-cam") == CAVEATS["grad-cam of a ViT"]
        assert all("not evidence of whose hand" in sentence for sentence in CAVEATS.values())


class TestOverlay:
    photo = Image.new("RGB", (80, 40), (200, 150, 120))

    def test_a_cell_is_where_it_belongs(self):
        values = np.zeros((4, 8))
        values[1, 6] = 1
        laid = np.asarray(overlay(self.photo, values, line=False)).astype(int)
        coloured = np.ptp(laid, axis=2)
        assert place_of(coloured[5::10, 5::10]) == (1, 6)
        assert coloured[:, :40].max() == 0  # grey, and nothing else

    def test_a_flat_map_is_flat_and_none_is_the_photo_in_grey(self):
        flat = np.asarray(overlay(self.photo, np.ones((2, 2)), line=False)).reshape(-1, 3)
        assert (flat == flat[0]).all()
        nothing = np.asarray(overlay(self.photo, np.zeros((2, 2))))
        assert np.ptp(nothing, axis=2).max() == 0

    def test_signs_have_colours_and_a_common_scale_dims(self):
        values = np.array([[1.0, 1, -1, -1]])
        laid = np.asarray(overlay(self.photo, values, signed=True, line=False)).astype(int)
        red, blue = laid[20, 5], laid[20, 75]
        assert red[0] - red[2] > 50
        assert blue[2] - blue[0] > 50
        dim = np.asarray(overlay(self.photo, values, signed=True, line=False, scale=4.0)).astype(int)
        assert 0 < np.ptp(dim[20, 5]) < np.ptp(red)
        cut = np.asarray(overlay(self.photo, values, line=False)).astype(int)
        assert np.ptp(cut[20, 75]) == 0

    def test_nothing_is_drawn_beyond_what_cells_say(self):
        values = np.array([[0.0, 1.0], [1.0, 0.0]])
        assert (enlarged(values, (50, 50)).min(), enlarged(values, (50, 50)).max()) == (0, 1)

    @pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
    def test_a_photo_is_laid_out_as_the_model_sees_it(self, tmp_path: Path, resize):
        from handreid.data.loading import decode
        from handreid.data.photo_file import PhotoFile

        path = tmp_path / "photo.png"
        gradient = np.linspace(0, 255, 200)[None, :, None] * np.ones((100, 1, 3))
        Image.fromarray(gradient.astype(np.uint8)).save(path)
        preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, resize=resize)
        large = model_input_image(PhotoFile(path), preprocessing, pixels=128)
        assert large.size == (128, 128)
        small = np.asarray(large.resize((32, 32), Image.Resampling.BOX)).transpose(2, 0, 1).astype(int)
        assert np.abs(small - decode(PhotoFile(path), preprocessing)).mean() < 3


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = ["stages.0.epochs=1", "stages.0.augment=[]"]
    recipe = parse_recipe(MICRO_RECIPE, "micro", overrides)
    return train(recipe, photos, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def query(run: Run) -> str:
    """One that is found, by the first draw."""
    path, found = evaluated(run)
    first = json.loads(path.read_text())["draws"][0]
    return next(found["photos"][n] for n, ranks in zip(first["query"], first["ranks"], strict=True) if ranks[0] == 1)


@pytest.mark.usefixtures("coarse_figures")
class TestFigures:
    @pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
    def test_attention_in_every_format_with_its_caption(self, run: Run, tmp_path: Path, suffix: str):
        called = handreid("figure", "attention", run.folder, "--count", 3, "--out", tmp_path / f"a.{suffix}")
        assert (called.code, called.err.count("Error")) == (0, 0)
        caption = (tmp_path / "a.txt").read_text()
        assert (tmp_path / f"a.{suffix}").stat().st_size > 5000
        for said in ("3 photos", "seed 0", "attention rollout", "4 x 4", CAVEATS["rollout"], "recipe micro"):
            assert said.lower() in caption.lower()
        assert all(value[:16] in caption for value in (run.facts["manifest_hash"],))

    def test_the_same_call_gives_the_same_bytes_and_a_seed_other_photos(self, run: Run, tmp_path: Path):
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            attention_figure(run, tmp_path / f"{name}.png", count=2, seed=seed)
        a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
        assert a == b
        assert a != c

    def test_named_photos_may_be_of_any_part(self, run: Run, tmp_path: Path):
        known = select_photos(run)
        trained = known.table.filter(known.table["role"] == "train")["path"][0]
        attention_figure(run, tmp_path / "a.png", photos=[trained], method="occlusion")
        assert f"Photos: {trained}." in (tmp_path / "a.txt").read_text()

    def test_everybody_is_drawn_once_before_anybody_twice(self, run: Run):
        tested = select_photos(run, part="test")
        people = set(tested.table["subject"])
        for seed in range(3):
            chosen = choose(tested, len(people), seed)
            assert set(tested.table["subject"][chosen.tolist()]) == people
            assert len(set(choose(tested, len(people) + 2, seed).tolist())) == len(people) + 2

    def test_of_a_wrong_answer_the_right_one_is_shown_as_well(
        self, run: Run, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        split = load_dataset(run.recipe, Path(run.facts["manifest"])).split
        asked = split.identities[split.paths.index(query)]
        right = [split.identities[row] == asked for row in split.test[0].gallery].index(True)
        similarity = np.full(5, 0.1)
        similarity[right] = 0.5
        similarity[[n for n in range(5) if n != right][:2]] = 0.9, 0.8
        points = np.stack([[1.0, *similarity], [0.0, *np.sqrt(1 - similarity**2)]], axis=1)
        monkeypatch.setattr("handreid.report.figures.match_map.embed_known", lambda *given: points)
        match_figure(run, tmp_path / "wrong.png", query)
        caption = (tmp_path / "wrong.txt").read_text()
        assert "Nearest of 5 in the gallery: another identity" in caption
        assert "Rank 3 of 5: same identity" in caption
        assert CAVEATS["occlusion"] in caption

    def test_of_a_right_answer_there_is_one_row(self, run: Run, query: str, tmp_path: Path):
        called = handreid("figure", "match", run.folder, query, "--out", tmp_path / "right.svg")
        assert called.code == 0, called.err
        caption = (tmp_path / "right.txt").read_text()
        assert "Nearest of 5 in the gallery: same identity" in caption
        assert "Rank" not in caption
        cosine = caption.split("cosine ")[1].split(",")[0]
        assert f"cosine {cosine}" in (tmp_path / "right.svg").read_text()

    def test_two_named_photos(self, run: Run, query: str, tmp_path: Path):
        match_figure(run, tmp_path / "m.pdf", query, query, flip_tta=True)
        assert "Named: same identity, cosine 1.000" in (tmp_path / "m.txt").read_text()

    def test_what_cannot_be_shown_is_one_line(self, run: Run, photos: Path, query: str, tmp_path: Path):
        out = ("--out", tmp_path / "x.png")
        line = complaint("figure", "attention", run.folder, "--photos", "p99/0.jpg", *out)
        assert "has no photo 'p99/0.jpg'; did you mean p" in line
        assert "matches 12 photos" in complaint("figure", "attention", run.folder, "--photos", "0.jpg", *out)
        assert "has no photo 'nobody'" in complaint("figure", "match", run.folder, query, "nobody", *out)
        trained = select_photos(run).table.filter(select_photos(run).table["role"] == "train")["path"][0]
        line = complaint("figure", "match", run.folder, trained, *out)
        assert "not a query of the first test draw but a photo of 'train'" in line
        assert ".png or .svg or .pdf" in complaint("figure", "attention", run.folder, "--out", tmp_path / "x.jpg")
        assert "is not a run folder" in complaint("figure", "match", tmp_path, "a", *out)
        assert not (tmp_path / "x.png").exists()

    def test_a_photo_is_found_by_its_path_or_its_end(self, run: Run):
        known = select_photos(run)
        paths = known.table["path"].to_list()
        assert find(known, paths[5]) == 5
        with pytest.raises(DataError, match="12 photos"):
            find(known, "1.jpg")

    def test_the_command_line_shows_other_data(self, run: Run, photos: Path, tmp_path: Path):
        called = handreid(
            "figure", "attention", run.folder, "--data", photos, "--count", 1, "--out", tmp_path / "a.png"
        )
        assert called.code == 0, called.err
        assert open_run(run.folder).finished
