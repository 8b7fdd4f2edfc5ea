"""Recipes: an experiment as plain frozen values, without torch and before any object is built."""

from handreid.recipe.custom_term import CustomTerm
from handreid.recipe.data import Data
from handreid.recipe.evaluate import Evaluate, Prompts
from handreid.recipe.load import builtin_names, dump_recipe, load_recipe, parse_recipe
from handreid.recipe.model import Backbone, Model
from handreid.recipe.objectives import (
    ArcFace,
    Center,
    CosFace,
    CrossEntropy,
    ImageToText,
    MetricLearning,
    SupCon,
    SymmetricContrast,
    TextToImage,
    Triplet,
)
from handreid.recipe.optimizer import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
    OneCycleSchedule,
    Optimizer,
    Schedule,
)
from handreid.recipe.preprocess import Preprocess
from handreid.recipe.pretrain import Pretrain
from handreid.recipe.prompts import LearnPrompts
from handreid.recipe.rendered import Rendered
from handreid.recipe.rerank import GalleryExpansion, KReciprocal, QueryExpansion, Rerank, read_rerank
from handreid.recipe.schema import Recipe, Stage
from handreid.recipe.stages import FineTune
from handreid.recipe.tracking import MLflow, TensorBoard, Tracker, Wandb, read_trackers

__all__ = [
    "ArcFace",
    "Backbone",
    "Center",
    "ConstantSchedule",
    "CosFace",
    "CosineSchedule",
    "CrossEntropy",
    "CustomTerm",
    "Data",
    "Evaluate",
    "FineTune",
    "GalleryExpansion",
    "ImageToText",
    "KReciprocal",
    "LearnPrompts",
    "MLflow",
    "MetricLearning",
    "Model",
    "MultistepSchedule",
    "OneCycleSchedule",
    "Optimizer",
    "Preprocess",
    "Pretrain",
    "Prompts",
    "QueryExpansion",
    "Recipe",
    "Rendered",
    "Rerank",
    "Schedule",
    "Stage",
    "SupCon",
    "SymmetricContrast",
    "TensorBoard",
    "TextToImage",
    "Tracker",
    "Triplet",
    "Wandb",
    "builtin_names",
    "dump_recipe",
    "load_recipe",
    "parse_recipe",
    "read_rerank",
    "read_trackers",
]
