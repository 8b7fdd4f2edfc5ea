"""PromptSG's head: pseudo-words of a photo in a sentence, whose feature attends to the photo; ours adds a graph.

Yang et al., "A Pedestrian is Worth One Prompt: Towards Language Guidance Person Re-Identification" (CVPR 2024). A
photo's joint feature becomes pseudo-words of a sentence (`pseudo_words.py`), whose feature attends to the photo's
tokens (`cross_attention.py`). With a graph (`prototype_graph.py`, ours) the words are made from the joint feature after
it has passed messages with prototypes.

* Training always composes. At test the sentence may be a fixed one instead: its feature is cached, and neither text
  tower nor inversion network nor graph is needed.
* Labels are an argument of `outputs` only, and are read in training only: to exclude a photo's own identity, and to
  update prototypes afterwards, so that the output of a photo does not depend on the other photos of its batch.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.models.cross_attention import Interaction
from handreid.models.heads import Head, Named, make_neck, named_features
from handreid.models.parts import Grid
from handreid.models.prototype_graph import Graph
from handreid.models.pseudo_words import PseudoWordEncoder, sentence_feature
from handreid.models.text import TextEncoder
from handreid.types import Features, Inference, Labels, Outputs

KINDS = ("promptsg", "promptsg_graph")
PART = "semantic"


@dataclass(frozen=True)
class JointSpace:
    """CLIP's joint space for a head: its width, the text tower, the image tower's projection into it.

    Without a text tower only the fixed sentence can be used.
    """

    width: int
    text: TextEncoder | None = None
    projection: Float[Tensor, "pooled joint"] | None = None


class SemanticHead(Head):
    """Features of the backbone with BNNecks, and one part, `semantic`: the sentence's feature after cross-attention.

    Raises RecipeError when the text tower cannot be prompted, or heads do not divide the joint width.
    """

    parts = (PART,)

    def __init__(
        self,
        widths: dict[str, int],
        necked: tuple[str, ...],
        grid: Grid,
        space: JointSpace,
        *,
        template: str,
        fixed: str,
        inference: Inference,
        heads: int,
        dropout: float,
        hidden: int,
        tokens: int = 1,
        graph: Graph | None = None,
    ) -> None:
        super().__init__()
        self.inference: Inference = inference
        self.before = {**widths, PART: space.width}
        self.after = {**{name: widths[name] for name in necked}, PART: space.width}
        self.interaction = Interaction(
            space.width, grid[2], heads=heads, dropout=dropout, projection=_fitting(space.projection, grid[2])
        )
        self.necks = nn.ModuleDict({name: make_neck(width) for name, width in self.after.items()})
        self.fixed: Tensor
        self.register_buffer("fixed", torch.zeros(space.width))
        self.words: PseudoWordEncoder | None = None
        self.graph = graph
        if space.text is not None:
            self.words = PseudoWordEncoder(space.text, space.width, template=template, tokens=tokens, hidden=hidden)
            self.fixed.copy_(sentence_feature(space.text, [fixed])[0])
        self._given = widths

    def forward(self, features: Features) -> tuple[Named, Named]:
        outputs = self.outputs(features)
        return outputs.before, outputs.after

    def outputs(self, features: Features, labels: Labels | None = None) -> Outputs:
        """Raises RecipeError when a sentence must be composed and the model was saved without its text tower."""
        fixed = self.inference == "fixed" and not self.training
        texts = None if fixed else self._composed(features, labels if self.training else None)
        query = self.fixed.expand(len(features.joint), -1) if texts is None else texts
        attended = self.interaction(query.to(features.joint.dtype), features.joint, features.patches)
        before = named_features(features, self._given) | {PART: attended}
        if self.training and labels is not None and self.graph is not None:
            self.graph.update_prototypes(features.joint, labels)
        return Outputs(features, before, {name: neck(before[name]) for name, neck in self.necks.items()}, texts)

    def set_identities(self, identities: int) -> None:
        if self.graph is not None:
            self.graph.set_identities(identities)

    @property
    def facts(self) -> dict[str, Any]:
        return {"inference": self.inference, **(self.graph.facts if self.graph is not None else {})}

    @property
    def composing(self) -> int:
        """Parameters that only a composed sentence needs."""
        if self.words is None:
            return 0
        parameters = [p for module in (self.words, self.graph) if module is not None for p in module.parameters()]
        return self.words.text.size + sum(p.numel() for p in parameters)

    def frozen(self) -> dict[str, Tensor]:
        return {} if self.words is None else self.words.text.stored_state()

    def load_frozen(self, state: dict[str, Tensor]) -> None:
        if self.words is not None:
            self.words.text.load(state)

    def _composed(self, features: Features, labels: Labels | None) -> Float[Tensor, "batch joint"]:
        if self.words is None:
            raise RecipeError(
                "this model was saved without its text tower and can only use the fixed sentence: "
                "use inference: fixed, or a model that was saved with it"
            )
        joint = features.joint
        texts: Tensor = self.words(joint if self.graph is None else self.graph(joint, labels))
        return texts


def build_semantic_head(
    config: dict[str, Any], widths: dict[str, int], necked: tuple[str, ...], grid: Grid, space: JointSpace
) -> SemanticHead:
    """The head of a saved configuration of one of `KINDS`."""
    arguments = {name: value for name, value in config.items() if name not in ("kind", "phrases")}
    about = ("neighbours", "layers", "temperature", "decay", "identities", "attributes")
    of_graph = {name: arguments.pop(name) for name in about if name in arguments}
    of_graph["attributes"] = [(column, phrase) for column, phrase in of_graph.get("attributes", ())]  # lists in JSON
    edges: Literal["none", "identity", "attributes"] = arguments.pop("edges", "none")
    graph = None if edges == "none" or space.text is None else Graph(space.width, edges=edges, **of_graph)
    return SemanticHead(widths, necked, grid, space, graph=graph, **arguments)


def strip_text_tower(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """An embedder's state without what only composed sentences need, and without keys that begin with `prefixes`."""
    return {
        name: value for name, value in state.items() if not name.startswith(("head.words.", "head.graph.", *prefixes))
    }


def _fitting(projection: Tensor | None, width: int) -> Tensor | None:
    """The image tower's projection, if it fits patches too (a ResNet's does not)."""
    return projection if projection is not None and len(projection) == width else None
