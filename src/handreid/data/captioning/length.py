"""Whether a caption fits CLIP's text tower: 77 tokens, start and end included."""

import re
from functools import cache
from typing import Any

LONGEST = 75
# Words of our sentences that are one token each. With them most captions can be counted without CLIP's tokenizer, whose
# import takes seconds; a test compares them with it.
_WORDS = """
a accessories aged an and are at back bare black blue brown dark fair female finger fingers from gold grey hand
has here image in index is it its least left light long male man medium middle nail nails near no of old on one
or other over painted palm palms person photo photograph picture polish red right ring seen short showing shows
side silver skin skinned table the their this tone two unusual very view watch wearing white with without woman
wood wooden year yes
"""
_ONE_TOKEN = frozenset(_WORDS.split())


def fits(text: str) -> bool:
    return _at_most(text) <= LONGEST or len(_tokenizer().encode(text)) <= LONGEST


def _at_most(text: str) -> int:
    """A number of tokens that the text does not exceed: a token is at least one byte of a word."""
    words = re.findall(r"[a-z]+|[^a-z\s]", text.lower())
    return sum(1 if word in _ONE_TOKEN else len(word.encode()) for word in words)


@cache
def _tokenizer() -> Any:
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()
