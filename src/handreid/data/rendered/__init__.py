"""Synthetic photos of hands of invented people, with known identity: for the demo, the tests and pre-training.

* `anatomy`     the person: bones, widths and nails of both hands
* `skin`        the person: creases, veins, palm lines, moles and scars
* `skin_marks`  those marks as data: lines and spots
* `scene`       the conditions of one photo: framing, camera, light, background, accessories
* `pose`        how the hand is held
* `shape`       where every part of the hand lies in the picture, and its height
* `line_art`    draws the marks onto the skin
* `paint`       the colour of every part
* `compose`     puts the parts together
* `backdrop`    the background
* `textures`    noise for skin, cloth, wood and stone
* `exposure`    light, shadow, lens and sensor
* `appearance`  what is visible, as facts
* `captions`    the photo described in words
* `measurements` the person's anatomy as numbers
* `folder`      folders and processes
* `prepared_folder`   a folder together with its manifest
"""

from handreid.data.rendered.folder import VIEWS, render

__all__ = ["VIEWS", "render"]
