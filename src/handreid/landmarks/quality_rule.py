"""One number from the measures of a hand: 100 times the product of five factors from 0 (useless) to 1 (no fault).

* A product, as one fault is enough: a sharp hand that is overexposed is lost all the same.
* Measures and bounds were chosen on training subjects of 11k Hands, on photos as they are and degraded at random
  (docs/quality.md): kept is what lowers the error left after discarding. Not in the number: `inside`, which did not,
  `tilt`, which alignment undoes, and the landmarker's score, as another landmarker has another scale.
"""

import math
from dataclasses import dataclass

from handreid.landmarks.quality import HandQuality

VERSION = 1  # raised when the same measures give another number


@dataclass(frozen=True)
class Ramp:
    """A factor: 0 at `bad` and beyond, 1 at `good` and beyond, linear between, in the logarithm if `log`."""

    bad: float
    good: float
    log: bool = False

    def __call__(self, value: float) -> float:
        place = (math.log(max(value, 1e-9)) if self.log else value) - self._of(self.bad)
        return min(1.0, max(0.0, place / (self._of(self.good) - self._of(self.bad))))

    def _of(self, bound: float) -> float:
        return math.log(bound) if self.log else bound


RULE = {
    "size": Ramp(6.0, 32.0, log=True),
    "sharpness": Ramp(0.15, 0.45),
    "contrast": Ramp(3.0, 15.0, log=True),
    "overexposed": Ramp(0.7, 0.0),
    "slant": Ramp(0.2, 0.01),
}
# What `handreid figure quality` draws by default; "-": less is better.
CHECKED = (
    "quality",
    *(f"{'-' if RULE[name].bad > RULE[name].good else ''}quality_{name}" for name in RULE),
    "quality_inside",
)


def factors_of(found: HandQuality) -> dict[str, float]:
    """The factor of each measure in `RULE`; 0 for those of pixels where there are none in the photo."""
    values = vars(found) | ({} if found.pixels is None else vars(found.pixels))
    return {name: ramp(values[name]) if name in values else 0.0 for name, ramp in RULE.items()}


def quality_of(found: HandQuality) -> float:
    """The number, 0 to 100."""
    return 100 * math.prod(factors_of(found).values())
