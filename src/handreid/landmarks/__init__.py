"""Hands on pictures: 21 points each, found by a landmarker, and the transformations that these points give.

* `hand`            what a landmarker finds, and what one is
* `text`            points as the cell of a table
* `align`, `warp`   points to a transformation, a transformation to pixels
* `quality`, `quality_rule`   how well a hand can be seen: measures, and one number
* `mediapipe`       MediaPipe's Hand Landmarker, run by LiteRT (extra `landmarks`)
* `palm_detection`, `region`   its first model, and the squares that both models read
* `model_file`      where the models come from
"""

from handreid.landmarks.hand import BONES, POINTS, HandLandmarks, Landmarker, Picture, Points, Side

__all__ = ["BONES", "POINTS", "HandLandmarks", "Landmarker", "Picture", "Points", "Side"]
