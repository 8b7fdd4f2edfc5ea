"""Photos and captions find each other: open_clip's losses, which gather the features of all ranks."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.models.text import TextEncoder
from handreid.objectives.distances import at_least_fp32, without_autocast
from handreid.training.stages.pretrain.terms.base import Encoded, PretrainTerm, Result

LARGEST_SCALE = math.log(100)  # as CLIP: the temperature does not fall under 0.01
FIRST_BIAS = -10.0  # SigLIP's


class ImageText(PretrainTerm):
    """`clip`: Radford et al., "Learning Transferable Visual Models" (2021), section 2.3. `siglip`: Zhai et al.,
    "Sigmoid Loss for Language Image Pre-Training" (2023), algorithm 1; its bias belongs to this term, starts at -10.

    The temperature is the text tower's `logit_scale`: it learns if the text tower does, and is saved with it. A photo
    whose caption is also another photo's has that photo as a negative, as in the papers.
    """

    def __init__(
        self,
        text: TextEncoder,
        *,
        loss: Literal["clip", "siglip"],
        temperature: float | None,
        learns: Literal["image", "text", "both"],
    ) -> None:
        super().__init__()
        self.outside = (text,)  # the stage has the tower: here it would be in the checkpoint twice
        self.kind = loss
        self.learns = learns
        self.fixed_scale = None if temperature is None or learns != "image" else 1 / temperature
        if temperature is not None and learns != "image":
            with torch.no_grad():
                text.clip.logit_scale.fill_(-math.log(temperature))
        self.bias = nn.Parameter(torch.tensor(FIRST_BIAS)) if loss == "siglip" and learns != "image" else None
        self.fixed_bias = FIRST_BIAS if loss == "siglip" else None
        self.causal = _can_be_cut(text)

    @property
    def text(self) -> TextEncoder:
        return self.outside[0]

    def forward(self, encoded: Encoded) -> Result:
        assert encoded.tokens is not None  # noqa: S101 - for the type checker
        images, texts = encoded.features[0].joint, self.encode(encoded.tokens)
        with without_autocast(images):
            images, texts = (F.normalize(at_least_fp32(part), dim=1) for part in (images, texts))
            own: Tensor = self.text.clip.logit_scale.exp()
            scale = own if self.fixed_scale is None else torch.full_like(own, self.fixed_scale)
            loss = self._loss(images, texts, scale)
            best = (images.detach() @ texts.detach().T).argmax(dim=1)
            right = (encoded.tokens[best] == encoded.tokens).all(dim=1).float().mean()
        numbers = {"accuracy": right, "temperature": 1 / scale.detach()}
        learned = {"image": {"photos": images}, "text": {"captions": texts}}
        both = learned["image"] | learned["text"]
        return Result(loss, learned.get(self.learns, both), numbers)

    def encode(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch joint"]:
        """Features of sentences; each different one is computed once, without the padding after its end."""
        distinct, place = torch.unique(tokens, dim=0, return_inverse=True)
        if not self.causal:
            features: Tensor = self.text(distinct)
            return features[place]
        ends = (distinct == self.text.ends[1]).int().argmax(dim=1)
        distinct = distinct[:, : int(ends.max()) + 1]
        return self.text.encode_embedded(self.text.embed(distinct), ends)[place]

    @torch.no_grad()
    def after_step(self, backbone: nn.Module) -> None:
        if self.learns != "image":
            self.text.clip.logit_scale.clamp_(0, LARGEST_SCALE)

    def _loss(self, images: Tensor, texts: Tensor, scale: Tensor) -> Float[Tensor, ""]:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        ranks = {
            "rank": torch.distributed.get_rank() if distributed else 0,
            "world_size": torch.distributed.get_world_size() if distributed else 1,
        }
        if self.kind == "clip":
            loss: Tensor = ClipLoss(gather_with_grad=True, **ranks)(images, texts, scale)
        else:
            bias = self.fixed_bias if self.bias is None else self.bias
            loss = SigLipLoss(**ranks)(images, texts, scale, bias)
        return loss


def _can_be_cut(text: TextEncoder) -> bool:
    """Whether tokens after the end of a sentence do not change its feature."""
    try:
        text.check_promptable()
    except RecipeError:
        return False
    return True
