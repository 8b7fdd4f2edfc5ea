"""All errors that handreid raises on purpose, as one tree.

* HandreidError
    * DataError            photos and their labels
        * ManifestError    a wrong table of photos: which file, which line, which value
        * PhotoError       a photo that is missing, truncated or unreadable
        * ProtocolError    a split or draw that the data cannot give
    * RecipeError          an experiment that makes no sense: which key, in which file
    * WeightsError         weights that cannot be loaded or do not fit
    * RunError             a run folder that is missing, unfinished, or belongs to something else
    * CheckError           a check before the first step failed: which check, what it found, where
    * OutputError          a file or folder that cannot be written: which, and why

Every message says what was found, where, and what to do. The command line prints it unchanged and exits with 2.
"""


class HandreidError(Exception):
    """Base of all errors that handreid raises on purpose."""


class DataError(HandreidError):
    """Photos or their labels are wrong or missing."""


class ManifestError(DataError):
    """A table of photos is wrong; the message names file, line and value."""


class PhotoError(DataError):
    """A photo is missing, truncated or unreadable."""


class ProtocolError(DataError):
    """The data cannot give the split or draw that was asked for."""


class RecipeError(HandreidError):
    """A recipe is misspelt or makes no sense; the message names the key and the file."""


class WeightsError(HandreidError):
    """Weights cannot be loaded, or do not fit the tower."""


class RunError(HandreidError):
    """A run folder is missing, unfinished, or belongs to another recipe or data set."""


class CheckError(HandreidError):
    """A check before the first step failed: what would be trained is not what the recipe says."""


class OutputError(HandreidError):
    """A file or folder cannot be written; the message names the place."""
