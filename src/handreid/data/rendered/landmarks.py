"""The 21 points of a rendered hand, exactly: where the renderer put wrist, joints and fingertips."""

import numpy as np
from jaxtyping import Float64

from handreid.data.rendered.anatomy import Hand
from handreid.data.rendered.pose import Limb
from handreid.data.rendered.scene import Scene

TIP = 0.75  # of the last half width: landmarkers put the tip into the pad, not onto the outline


def landmarks(hand: Hand, scene: Scene, size: int) -> Float64[np.ndarray, "21 2"]:
    """The points of `handreid.landmarks.POINTS`, x and y in pixels of the photo of this side.

    Points of the arm and of fingertips may lie outside the photo. Joints are where bones meet, in the middle of the
    digit's width; the first point of the thumb is where its metacarpal begins.
    """
    places = [(0.0, 0.0), hand.thumb_root]
    for limb in scene.limbs:
        places += _joints(limb)
    return np.array([scene.framing.place(place) for place in places]) * size


def _joints(limb: Limb) -> list[tuple[float, float]]:
    tip = limb.true[-1] - TIP * limb.digit.radii[-1]
    return [limb.place(0.0, along) for along in (*limb.true[:-1], tip)]
