"""The note on words that a text tower does not know."""

from collections.abc import Iterable

from handreid.data.tables import format_list
from handreid.models.known_words import unknown_words
from handreid.models.text import TextEncoder


def unknown_words_note(text: TextEncoder, sentences: Iterable[str], what: str) -> list[str]:
    """A note that names the words which mean nothing to the tower, in sentences that are for `what`; none without."""
    words = unknown_words(text, sentences)
    if not words:
        return []
    listed = format_list(words, 12)
    return [f"{what}: the text tower learned from no text with {listed}: to it, such words mean nothing"]
