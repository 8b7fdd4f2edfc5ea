"""Everything that can go wrong on purpose, as one tree.

* HandreidError
    * DataError            photos and what is said about them
        * ManifestError    a table of photos that is wrong: which file, which line, which value
        * PhotoError       a photo that is missing, truncated or unreadable
        * ProtocolError    a split or draw that the data cannot give
    * RecipeError          an experiment that makes no sense: which key, in which file
    * WeightsError         weights that cannot be had or do not fit
    * RunError             a run folder that is missing, unfinished, or belongs to something else
    * CheckError            what is about to be trained is not what the recipe says: which check, what it found, where
    * OutputError          a file or folder that cannot be written: which, and why

Every message says what was found, where, and what to do. The command line prints it as it is and exits with 2.
"""


class HandreidError(Exception):
    """Base of all errors that handreid raises on purpose."""


class DataError(HandreidError):
    """Photos, or what is said about them, are not as they should be."""


class ManifestError(DataError):
    """A table of photos holds something wrong; the message names file, line and value."""


class PhotoError(DataError):
    """A photo is missing, truncated or unreadable."""


class ProtocolError(DataError):
    """The data cannot give the split or draw that was asked for."""


class RecipeError(HandreidError):
    """A recipe is misspelt or makes no sense; the message names the key and the file."""


class WeightsError(HandreidError):
    """Weights cannot be had, or do not fit the tower that should hold them."""


class RunError(HandreidError):
    """A run folder is missing, unfinished, or belongs to another recipe or data set."""


class CheckError(HandreidError):
    """A check before the first step failed: what would be trained is not what the recipe says."""


class OutputError(HandreidError):
    """A file or folder cannot be written; the message names the place."""
