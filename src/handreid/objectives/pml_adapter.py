"""Adapter of pytorch-metric-learning.

* Distance and reducer are always given. They are the library's, corrected where they give non-finite numbers: a mean
  over no pairs, the angle between equal features, a division by zero variance.
* Mistakes of a recipe are reported when the objective is built, with the name of the loss: a dry run on a few features.
* A loss is refused when it does not compute what its paper says, or cannot be used in a training loop.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor, nn

from handreid import messages
from handreid.errors import RecipeError

Arguments = dict[str, object]


class Cosine(distances.CosineSimilarity):  # type: ignore[misc]  # the library is untyped
    """Clamped by a few roundings below 1 and above -1, where the gradient of the arc cosine is infinite."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        limit = 1 - 8 * torch.finfo(query_emb.dtype).eps
        cosine: Tensor = super().compute_mat(query_emb, ref_emb)
        return cosine.clamp(-limit, limit)


class Euclidean(distances.LpDistance):  # type: ignore[misc]
    """Computed from differences; see `objectives/distances.py`."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return torch.cdist(query_emb, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")


class SignalToNoise(distances.SNRDistance):  # type: ignore[misc]
    """Finite for a feature of zero variance, by which the library divides."""

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        noise = (query_emb[:, None] - ref_emb).var(dim=2)
        return noise / query_emb.var(dim=1, keepdim=True).clamp(min=torch.finfo(query_emb.dtype).eps)


class Mean(reducers.MeanReducer):  # type: ignore[misc]
    """0, not 0 / 0, if there is nothing to average."""

    def element_reduction(self, losses: Tensor, indices: object, embeddings: Tensor, *_: object) -> Tensor:
        return losses.mean() if len(losses) else embeddings.sum() * 0


class CrossBatchMemory(losses.CrossBatchMemory):  # type: ignore[misc]
    """With its write position in the checkpoint; the library stores only the embeddings there."""

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def set_extra_state(self, state: Tensor) -> None:
        self.queue_idx, filled = state.tolist()
        self.has_been_filled = bool(filled)


DISTANCES: dict[str, Callable[[], nn.Module]] = {
    "cosine": Cosine,
    "dot_product": distances.DotProductSimilarity,
    "euclidean": lambda: Euclidean(normalize_embeddings=False),
    "squared_euclidean": lambda: Euclidean(normalize_embeddings=False, power=2),
    "normalised_euclidean": Euclidean,
    "signal_to_noise": SignalToNoise,
}
REDUCERS: dict[str, Callable[[], nn.Module]] = {
    "mean": Mean,
    "sum": reducers.SumReducer,
    "mean_of_positive": reducers.AvgNonZeroReducer,
}
ABSTRACT = frozenset(
    ("BaseLossWrapper", "BaseMetricLossFunction", "BaseMiner", "EmbeddingRegularizerMixin", "GenericPairLoss")
) | {"WeightRegularizerMixin"}
REFUSED = {
    "CrossBatchMemory": "it wraps another loss: name that one and set `memory`",
    "DynamicSoftMarginLoss": "it keeps the last step's graph, so that the second step fails",
    "EmbeddingsAlreadyPackagedAsTriplets": "it takes photos 3n, 3n + 1, 3n + 2 of a batch for a triplet, which none is",
    "HistogramLoss": "it relies on a way of indexing that torch has announced to read differently",
    "InstanceLoss": "given labels, it draws every photo to the one whose place in the batch is its label's number",
    "ManifoldLoss": "it takes no labels",
    "MultipleLosses": "it wraps other losses: list them as objectives of their own",
    "SelfSupervisedLoss": "it takes no labels",
    "SmoothAPLoss": "it takes the number of photos per identity for that of identities",
    "VICRegLoss": "it takes no labels",
}
NOT_COMPARED_TO_ITSELF = "NCALoss"
"""It would find each photo's own copy in the memory as its nearest neighbour."""
UNCHECKED = {"RankedListLoss": ("euclidean", "squared_euclidean", "normalised_euclidean")}
"""Allowed distances of losses that accept a similarity without an error, and would learn the opposite with it."""
ELSEWHERE = frozenset(
    ("distance", "reducer", "collect_stats", "mat_based_loss", "embedding_regularizer", "embedding_reg_weight")
) | {"weight_regularizer", "weight_reg_weight", "weight_init_func"}
"""Arguments that are set elsewhere in the recipe, or that are objects and cannot be set in a recipe."""


def build_loss(name: str, arguments: Arguments, distance: str, reducer: str, sizes: Arguments) -> nn.Module:
    """The library's loss of that name; `sizes` are arguments from the data, for losses that require them.

    Raises RecipeError for arguments that the library refuses, and for those that it accepts but uses differently.
    """
    factory = _class("loss", name, losses)
    parameters = _parameters(factory)
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    filled = {key: sizes[key] for key in required & sizes.keys()}
    _check_arguments(f"loss {name}", arguments, parameters.keys() - filled.keys(), required - filled.keys())
    common = {"reducer": REDUCERS[reducer](), **filled, **arguments}
    return _build(f"loss {name}", factory, common, distance, UNCHECKED.get(name, tuple(DISTANCES)))


def build_miner(name: str, arguments: Arguments, distance: str) -> nn.Module:
    factory = _class("miner", name, miners)
    parameters = _parameters(factory)
    _check_arguments(f"miner {name}", arguments, parameters.keys(), set())
    return _build(f"miner {name}", factory, arguments, distance, tuple(DISTANCES))


def build_memory(loss: nn.Module, miner: nn.Module | None, size: int, width: int) -> CrossBatchMemory:
    name = type(loss).__name__
    supported = [loss_name for loss_name in CrossBatchMemory.supported_losses() if loss_name != NOT_COMPARED_TO_ITSELF]
    if name not in supported:
        raise _error(f"loss {name} cannot use a memory: remove `memory`, or use {_joined(supported)}")
    return CrossBatchMemory(loss, width, memory_size=size, miner=miner)


def dry_run(loss: nn.Module, miner: nn.Module | None, width: int, identities: int) -> None:
    """Raises RecipeError when the loss fails, or is not finite, on a few features. Draws no random numbers."""
    labels = torch.arange(8) // 2 % identities
    with torch.random.fork_rng(devices=[]):
        features = torch.randn(8, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            try:
                value = loss(features, labels, miner(features, labels) if miner else None).sum()
            except Exception as error:
                raise _error(f"{_both(loss, miner)} fails: {error or type(error).__name__}") from error
    if not value.isfinite():
        raise _error(f"{_both(loss, miner)} gives {value.item()} for random features: change its arguments")


def _both(loss: nn.Module, miner: nn.Module | None) -> str:
    return f"loss {type(loss).__name__}" + (f" with miner {type(miner).__name__}" if miner else "")


def _class(kind: str, name: str, module: ModuleType) -> Callable[..., Any]:
    classes = {key: cls for key, cls in inspect.getmembers(module, inspect.isclass) if key not in ABSTRACT}
    if name in REFUSED and name in classes:
        raise _error(f"{kind} {name} is not supported: {REFUSED[name]}")
    usable = [key for key in classes if key not in REFUSED]
    if name not in usable:
        lower = {key.lower(): key for key in usable}
        close = lower.get(name.lower(), name)
        hint = f"did you mean {close!r}?" if close != name else messages.known(name, usable, f"in `{module.__name__}`")
        raise _error(f"pytorch-metric-learning has no {kind} {messages.shown(name)}: {hint}")
    factory: Callable[..., Any] = classes[name]
    return factory


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a class: its own and, through **kwargs, those of its base classes."""
    parameters: dict[str, inspect.Parameter] = {}
    for cls in inspect.getmro(factory):  # type: ignore[arg-type]
        if "__init__" in vars(cls):
            for name, parameter in list(inspect.signature(vars(cls)["__init__"]).parameters.items())[1:]:
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and name not in ELSEWHERE:
                    parameters.setdefault(name, parameter)
    return parameters


def _check_arguments(what: str, arguments: Arguments, allowed: Iterable[str], required: Iterable[str]) -> None:
    allowed = sorted(allowed)
    if wrong := sorted(arguments.keys() - set(allowed)):
        raise _error(f"{what} has no argument {_joined(wrong)}: known are {_joined(allowed) or 'none'}")
    if missing := sorted(set(required) - arguments.keys()):
        raise _error(f"{what} needs {_joined(missing)} among its arguments; known are {_joined(allowed)}")


def _build(
    what: str, factory: Callable[..., Any], common: Arguments, distance: str, takes: tuple[str, ...]
) -> nn.Module:
    def attempt(name: str) -> nn.Module | Exception:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the library gives scipy a tensor
                built: nn.Module = factory(distance=DISTANCES[name](), **common)
        except Exception as error:
            return error
        return built

    built = attempt(distance) if distance in takes else ValueError()
    if isinstance(built, nn.Module):
        return built
    right = [name for name in takes if isinstance(attempt(name), nn.Module)]
    if right:
        raise _error(f"{what} does not take the distance {distance}: set `distance` to {' or '.join(right)}")
    raise _error(f"{what} rejects its arguments: {built or type(built).__name__}")


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)


def _error(message: str) -> RecipeError:
    return RecipeError(f"objective metric_learning: {message}")
