"""Photo-like pictures of hands nobody owns, with known identity: for the demo, the tests and pre-training.

* `anatomy`   who: bones, widths and nails of a person's two hands
* `skin`      who: creases, veins, palm lines, moles and scars, kept as `marks`
* `scene`     the circumstances of one photo: pose, framing, camera, light, background, sleeve
* `form`      where every part of the hand lies in the picture, and how high it stands
* `ink`       marks onto the skin
* `paint`     what colour every part has
* `compose`   the parts put together
* `backdrop`  what lies behind it
* `exposure`  light, shadow, lens, sensor and JPEG
* `captions`  the photo in words
* `folder`    folders and processes
"""

from handreid.data.rendered.folder import VIEWS, render

__all__ = ["VIEWS", "render"]
