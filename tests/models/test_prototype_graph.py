"""The graph of prototypes: its formula, that nobody is shown to themselves, and that an unseen hand needs no label."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from handreid.build import build_embedder, build_towers
from handreid.data.manifest import Manifest
from handreid.errors import RecipeError
from handreid.models.embedder import Embedder
from handreid.models.prototype_graph import Graph, nearest
from handreid.recipe import Recipe, load_recipe
from handreid.runs.dataset import load_dataset
from handreid.training.prototype_attributes import attach_prototypes, attributes_of, mirrored
from handreid.training.train import train
from tests.plain_results import evaluated
from tests.training.test_train import fit, micro, module_of

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

WIDTH = 6
ATTRIBUTES = [("aspect", "a back"), ("aspect", "a palm"), ("skin", "dark"), ("skin", "fair"), ("skin", "pale")]
COLUMNS = {"aspect": 2, "skin": 3}
TERMS = "stages.0.objectives=[{kind: cross_entropy, features: [pooled, parts]}, {kind: symmetric_contrast}]"


def graph_of(identities: int = 7, *, edges: str = "attributes", layers: int = 2, neighbours: int = 3) -> Graph:
    """All identities seen but the last; attributes in the shares that photos may have."""
    torch.manual_seed(0)
    graph = Graph(
        WIDTH, edges=edges, neighbours=neighbours, layers=layers, temperature=0.3, decay=0.8, identities=identities
    )
    for layer in graph.layers:
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    if edges == "attributes":
        shares = torch.cat([torch.rand(identities, n).softmax(1) for n in COLUMNS.values()], dim=1)
        graph.describe(ATTRIBUTES, torch.randn(len(ATTRIBUTES), WIDTH), shares)
    graph.prototypes.copy_(F.normalize(torch.randn(identities, WIDTH), dim=1))
    graph.counts[:-1] = 2
    return graph


def features(count: int = 4) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(5))


class Loop:
    """The formula of the docstring, a node at a time."""

    def __init__(self, graph: Graph, without: int | None) -> None:
        self.graph = graph
        self.there = [i for i in range(len(graph.counts)) if graph.counts[i] > 0 and i != without]
        self.columns = list(COLUMNS)

    def sized(self, vector: Tensor) -> Tensor:
        return math.sqrt(WIDTH) * vector / vector.norm()

    def heard(self, place: Tensor, states: dict[int, Tensor], itself: int | None = None) -> Tensor:
        cosines = {i: float(place @ self.graph.prototypes[i] / place.norm()) for i in self.there if i != itself}
        near = sorted(cosines, key=cosines.__getitem__)[-self.graph.neighbours :]
        weights = {i: math.exp(cosines[i] / self.graph.temperature) for i in near}
        return sum(w * states[i] for i, w in weights.items()) / sum(weights.values())

    def likeness(self, photo: Tensor) -> list[float]:
        found = []
        for column in self.columns:
            which = [n for n, (name, _) in enumerate(ATTRIBUTES) if name == column]
            logits = [float(photo @ self.graph.phrases[n] / photo.norm()) / 0.01 for n in which]
            exps = [math.exp(one - max(logits)) for one in logits]
            found += [one / sum(exps) / len(self.columns) for one in exps]
        return found

    def after(self, layer: Any, state: Tensor, identities: Tensor, attributes: Tensor | None) -> Tensor:
        changed = state + layer.of_identities.weight @ identities
        return self.sized(changed if attributes is None else changed + layer.of_attributes.weight @ attributes)

    def __call__(self, photo: Tensor) -> Tensor:
        graph = self.graph
        first, *more = graph.layers
        people = {i: self.sized(graph.prototypes[i]) for i in range(len(graph.counts))}
        words = [self.sized(one) for one in graph.phrases]
        asked = bool(words)
        weights = self.likeness(photo) if asked else []

        def mixed(weights: list[float], states: list[Tensor]) -> Tensor | None:
            return sum(w * s for w, s in zip(weights, states, strict=True)) if asked else None

        state = self.after(first, self.sized(photo), self.heard(photo, people), mixed(weights, words))
        if not more:
            return state
        moved = {
            i: self.after(
                first,
                people[i],
                self.heard(graph.prototypes[i], people, itself=i),
                mixed([float(share) / len(COLUMNS) for share in graph.shares[i]] if asked else [], words),
            )
            for i in self.there
        }
        moved_words = []
        for n, word in enumerate(words):
            total = sum(graph.shares[i, n] for i in self.there)
            mean = sum(graph.shares[i, n] * people[i] for i in self.there) / total
            moved_words.append(self.sized(word + first.to_attributes.weight @ mean))
        return self.after(more[0], state, self.heard(photo, moved), mixed(weights, moved_words))


@pytest.mark.parametrize("edges", ["identity", "attributes"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("exclude", [None, [2, 0, 6, 3]])
def test_it_is_its_formula(edges: str, layers: int, exclude: list[int] | None):
    graph = graph_of(edges=edges, layers=layers)
    found = graph(features(), None if exclude is None else torch.tensor(exclude))
    for row, photo in enumerate(features()):
        wanted = Loop(graph, None if exclude is None else exclude[row])(photo)
        torch.testing.assert_close(found[row], wanted, rtol=1e-4, atol=1e-4)


class TestLeavingOut:
    @pytest.mark.parametrize("edges", ["identity", "attributes"])
    @pytest.mark.parametrize("layers", [1, 2])
    def test_the_own_prototype_has_no_say(self, edges: str, layers: int):
        """Wherever it stands and whatever attributes it has: as if it were not in the graph, as at test."""
        graph, labels = graph_of(edges=edges, layers=layers), torch.tensor([1, 1, 1, 1])
        seen, shown = graph(features(), labels), graph(features())
        graph.prototypes[1] = F.normalize(features()[0], dim=0)
        graph.shares[1] = graph.shares[1].flip(0)
        torch.testing.assert_close(graph(features(), labels), seen, rtol=1e-4, atol=1e-4)
        assert (graph(features()) - shown).norm(dim=1).max() > 1e-2
        graph.counts[1] = 0
        torch.testing.assert_close(graph(features()), seen, rtol=1e-4, atol=1e-4)

    def test_it_is_the_nearest_and_weighs_nothing(self):
        identities = F.normalize(torch.randn(5, WIDTH), dim=1)
        hidden = torch.eye(5, dtype=torch.bool)[:, None]
        near, weights = nearest(identities[:, None], identities, hidden, 5, 0.1)
        assert (weights[near == torch.arange(5)[:, None, None]] == 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(5, 1))
        shown, _ = nearest(identities[:, None], identities, torch.zeros_like(hidden), 1, 0.1)
        assert shown.flatten().tolist() == list(range(5))

    def test_a_photos_own_label_does_not_show_in_training(self):
        """Both photos are of identities that nobody is near to: what they are given is the same whoever they are."""
        graph = graph_of(neighbours=6)
        graph.counts[:2] = 0
        first, second = (graph(features(), torch.tensor([label] * 4)) for label in (0, 1))
        assert torch.equal(first, second)

    @pytest.mark.parametrize("kind", ["identity", "attributes"])
    def test_training_leaves_it_out_and_testing_needs_no_label(self, kind: str):
        """Trap 5, as a training shortcut."""
        embedder = embedder_of(f"model.head.edges={kind}")
        embedder.head.set_identities(4)
        photos, labels = photos_of(8), torch.arange(8) % 4
        with torch.no_grad():
            for _ in range(3):
                embedder.train()(photos, labels=labels)
            embedder.head.graph.decay = 1.0  # prototypes stay where they are
            texts = embedder(photos, labels=labels).texts
            embedder.head.graph.prototypes[0] *= -1
            moved = embedder(photos, labels=labels).texts
        torch.testing.assert_close(moved[labels == 0], texts[labels == 0], rtol=1e-4, atol=1e-4)
        assert (moved - texts)[labels != 0].norm(dim=1).min() > 1e-4


class TestNeighbours:
    @pytest.mark.parametrize("identities", [0, 1, 2, 7])
    def test_there_may_be_few_or_none(self, identities: int):
        graph = Graph(
            WIDTH, edges="attributes", neighbours=5, layers=2, temperature=0.1, decay=0.8, identities=identities
        )
        found = graph(features().requires_grad_())
        assert found.isfinite().all()
        torch.testing.assert_close(found, math.sqrt(WIDTH) * F.normalize(features(), dim=1))
        found.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in graph.parameters())

    def test_identities_that_were_not_seen_weigh_nothing(self):
        graph = graph_of()
        before = graph(features())
        graph.prototypes[-1] = F.normalize(features()[0], dim=0)
        assert torch.equal(graph(features()), before)

    def test_weights_have_a_gradient_and_parameters_learn(self):
        graph, photos = graph_of(), features().requires_grad_()
        (graph(photos, torch.tensor([0, 1, 2, 3])) ** 3).sum().backward()
        assert photos.grad.norm(dim=1).min() > 0
        assert all(p.grad.abs().sum() > 0 for p in graph.parameters())
        identities = F.normalize(torch.randn(5, WIDTH), dim=1)
        place = F.normalize(torch.randn(1, 1, WIDTH), dim=2).requires_grad_()
        _, weights = nearest(place, identities, torch.zeros(1, 1, 5, dtype=torch.bool), 3, 0.1)
        weights[..., 0].sum().backward()
        assert place.grad.norm() > 0

    def test_half_precision_is_not_let_in(self):
        graph = graph_of()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(graph(features()), graph_of()(features()))


class TestPrototypes:
    def test_they_are_running_means_of_directions(self):
        graph = Graph(2, edges="identity", neighbours=1, layers=1, temperature=0.1, decay=0.75, identities=3)
        graph.update_prototypes(torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        torch.testing.assert_close(graph.prototypes, torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]]))
        graph.update_prototypes(torch.tensor([[0.0, 3.0]]), torch.tensor([0]))
        torch.testing.assert_close(graph.prototypes[0], torch.tensor([0.375, 0.625]))
        assert graph.counts.tolist() == [3, 1, 0]

    def test_more_identities_may_come_and_the_known_stay(self):
        graph = graph_of()
        before = graph(features())
        graph.set_identities(9)
        assert len(graph.prototypes) == len(graph.counts) == len(graph.shares) == 9
        graph.set_identities(3)
        assert len(graph.prototypes) == 9
        torch.testing.assert_close(graph(features()), before)

    def test_only_training_moves_them_and_after_the_photos_are_through(self):
        embedder, photos, labels = embedder_of(), photos_of(4), torch.tensor([0, 1, 2, 3])
        embedder.head.set_identities(4)
        graph = embedder.head.graph
        with torch.no_grad():
            embedder(photos, labels=labels)
            assert not graph.counts.any()
            first = embedder.train()(photos, labels=labels).texts
            assert graph.counts.tolist() == [1, 1, 1, 1]
            changed = torch.cat([photos[:1], photos[1:].bitwise_not()])
            fresh = embedder_of().train()
            fresh.head.set_identities(4)
            torch.testing.assert_close(fresh(changed, labels=labels).texts[0], first[0], rtol=1e-4, atol=1e-5)


def graph_recipe(*overrides: str) -> Recipe:
    head = "model.head={kind: promptsg_graph, neighbours: 3, tokens: 2}"
    test = "model.test_feature={features: [pooled, parts], neck: after}"
    return micro(head, test, TERMS, *overrides)


def embedder_of(*overrides: str) -> Embedder:
    recipe = graph_recipe(*overrides)
    return build_embedder(recipe, build_towers(recipe))


def photos_of(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


class TestUnseenHands:
    @pytest.fixture
    def trained(self) -> Embedder:
        embedder = embedder_of()
        embedder.head.set_identities(4)
        with torch.no_grad():
            embedder.train()(photos_of(8), labels=torch.arange(8) % 4)
        return embedder.eval()

    def test_what_its_neighbours_are_shows_and_its_label_does_not(self, trained: Embedder):
        photos = photos_of(3).bitwise_not()
        before = trained.embed(photos)
        with torch.no_grad():
            for label in (0, 3):
                outputs = trained(photos, labels=torch.full((3,), label))
                assert torch.equal(F.normalize(trained.concat_features(outputs), dim=1), before)
        trained.head.graph.prototypes.neg_()
        assert (trained.embed(photos) - before).norm(dim=1).min() > 1e-5

    def test_it_is_of_its_photo_alone(self, trained: Embedder):
        photos = photos_of(4)
        torch.testing.assert_close(trained.embed(photos)[:1], trained.embed(photos[:1]), rtol=1e-4, atol=1e-5)

    def test_the_graph_is_saved_with_the_model(self, trained: Embedder, tmp_path: Path):
        trained.head.graph.describe(ATTRIBUTES, torch.randn(5, 32), torch.rand(4, 5))
        trained.save(tmp_path / "model.safetensors")
        loaded = Embedder.load(tmp_path / "model.safetensors")
        assert torch.equal(loaded.head.graph.prototypes, trained.head.graph.prototypes)
        assert loaded.head.graph.attributes == ATTRIBUTES
        assert torch.equal(loaded.embed(photos_of(4)), trained.embed(photos_of(4)))


class TestAblation:
    @pytest.mark.parametrize("edges", ["none", "identity", "attributes"])
    def test_every_kind_of_edges_trains_and_is_evaluated(self, edges: str, described: Path, tmp_path: Path):
        run = train(graph_recipe(f"model.head.edges={edges}", "stages.0.epochs=1"), described, tmp_path / "run")
        found = evaluated(run)[1]
        assert set(found["inference"]) == {"chosen", "composed", "fixed", "difference"}
        graph = Embedder.load(run.model).head.graph
        assert (graph is None) == (edges == "none")
        if graph is not None:
            assert graph.counts.gt(0).all()
            assert bool(graph.attributes) == (edges == "attributes")

    def test_without_edges_it_is_the_inversion_of_the_same_sizes(self):
        plain, other = embedder_of("model.head.edges=none").head, embedder_of().head
        sizes = [{n: p.shape for n, p in head.words.named_parameters()} for head in (plain, other)]
        assert sizes[0] == sizes[1]
        assert plain.graph is None
        joint = torch.randn(2, 32)
        features = plain.words(joint)
        assert features.shape == joint.shape

    def test_all_that_can_learn_learns_with_edges_of_identities(self):
        module = module_of(graph_recipe("model.head.edges=identity"))
        before = {name: p.detach().clone() for name, p in module.embedder.head.named_parameters()}
        fit(module)
        head = module.embedder.head
        same = [n for n, p in head.named_parameters() if p.requires_grad and torch.equal(p, before[n])]
        assert not same

    @pytest.mark.parametrize("option", ["mix={kind: mixup}", "wise_ft={alphas: [0.5]}"])
    def test_what_would_spoil_prototypes_is_refused(self, option: str):
        with pytest.raises(RecipeError, match="keeps prototypes"):
            micro("model.head={kind: promptsg_graph}", "stages.0.objectives=[{kind: cross_entropy, features: [parts]}]",
                  f"stages.0.{option}")  # fmt: skip

    def test_the_builtin_recipe_is_the_papers_but_for_the_words(self):
        plain, ours = (load_recipe(f"{size}promptsg{end}") for size in ("",) for end in ("", "-graph"))
        assert plain.stages == ours.stages
        assert ours.model.head.kind == "promptsg_graph"


@pytest.fixture(scope="module")
def described(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up photos with a side and an aspect, ages, and skin for some."""
    from handreid.data.manifest import read

    found = read(photos)
    number = pl.int_range(pl.len())
    table = found.table.with_columns(
        pl.when(number % 2 == 0).then(pl.lit("left")).otherwise(pl.lit("right")).alias("side"),
        pl.when(number % 4 < 2).then(pl.lit("dorsal")).otherwise(pl.lit("palmar")).alias("aspect"),
        (20 + number).alias("age"),
        pl.when(number % 3 == 0).then(pl.lit("dark")).otherwise(None).alias("skin_color"),
    )
    path = tmp_path_factory.mktemp("described") / "manifest.parquet"
    Manifest(table, found.root).write(path)
    return path


class TestAttributes:
    PHOTOS = pl.DataFrame(
        {
            "side": ["left", "left", "right", "right"],
            "skin_color": ["fair", None, "dark", "dark"],
            "age": [20, 30, 60, None],
            "nail_polish": [0, 1, 1, 1],
            "number": ["a", "b", "c", "d"],
        }
    )
    LABELS = np.array([0, 0, 1, 2])

    def found(self, phrases: dict[str, str]) -> dict[str, list[float]]:
        attributes, shares = attributes_of(self.PHOTOS, self.LABELS, phrases)
        return {phrase: shares[:, n].tolist() for n, (_, phrase) in enumerate(attributes)}

    def test_shares_are_of_the_photos_that_are_known(self):
        found = self.found({"side": "a {value} hand", "skin": "{value} skin"})
        assert found == {
            "a left hand": [1, 0, 0],
            "a right hand": [0, 1, 1],
            "dark skin": [0, 1, 1],
            "fair skin": [1, 0, 0],
        }

    def test_numbers_become_words(self):
        found = self.found({"age": "{value} person", "nail_polish": "{value} nails"})
        assert found == {
            "adult person": [0.5, 0, 0],
            "older person": [0, 1, 0],
            "young person": [0.5, 0, 0],
            "bare nails": [0.5, 0, 0],
            "painted nails": [0.5, 1, 1],
        }

    def test_columns_that_are_not_there_are_left_out_and_none_at_all_is_refused(self):
        assert set(self.found({"camera": "by {value}", "side": "{value}"})) == {"left", "right"}
        with pytest.raises(RecipeError, match="the manifest has no values of camera; its columns are side, skin_color"):
            self.found({"camera": "by {value}"})

    def test_a_mirror_image_is_of_another_identity_and_the_other_side(self):
        photos, labels = mirrored(self.PHOTOS, self.LABELS)
        assert labels.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
        _, shares = attributes_of(photos, labels, {"side": "{value}"})
        assert torch.equal(shares[:3], shares[3:].flip(1))

    def test_what_the_manifest_says_of_test_photos_changes_no_embedding(self, described: Path, tmp_path: Path):
        """Trap 5: attributes of test photos reach nothing; those of training photos reach the graph."""
        recipe = graph_recipe()
        material = load_dataset(recipe, described)
        table = material.manifest.table
        others = np.setdiff1d(np.arange(len(table)), material.split.train)
        changed = {}
        for name, rows in (("test", others), ("train", material.split.train)):
            ages = table["age"].to_numpy().copy()
            ages[rows] = 90 - ages[rows]
            Manifest(table.with_columns(age=pl.Series(ages)), material.manifest.root).write(
                tmp_path / f"{name}.parquet"
            )
            changed[name] = load_dataset(recipe, tmp_path / f"{name}.parquet")
            assert changed[name].split.train.tolist() == material.split.train.tolist()
        found = {}
        for name, one in {"as it is": material, **changed}.items():
            embedder = build_embedder(recipe, build_towers(recipe))
            attach_prototypes(embedder, recipe, one)
            graph = embedder.head.graph
            graph.update_prototypes(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5))
            found[name] = embedder.embed(photos_of(4))
            assert graph.shares.shape == (len(graph.prototypes), len(graph.attributes))
        assert torch.equal(found["as it is"], found["test"])
        assert not torch.equal(found["as it is"], found["train"])

    def test_a_manifest_without_attributes_leaves_no_run_behind(self, photos: Path, tmp_path: Path):
        with pytest.raises(RecipeError, match=r"name them in model\.head\.phrases, or use edges: identity"):
            train(graph_recipe(), photos, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("phrase", ["a hand", "{value} {value}"])
    def test_a_phrase_has_one_place(self, phrase: str):
        with pytest.raises(RecipeError, match=r"must contain \{value\} once"):
            graph_recipe(f"model.head.phrases={{side: '{phrase}'}}")
