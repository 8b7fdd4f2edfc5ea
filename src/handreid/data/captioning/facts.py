"""What a caption can say of a photo, as facts with several wordings each."""

from dataclasses import dataclass
from typing import Literal

Slot = Literal["owner", "has", "wears", "pose", "setting", "phrase", "remark"]


@dataclass(frozen=True)
class Fact:
    """One fact. What its wordings, `forms`, may be depends on the slot:

    * owner: a noun phrase, `a woman aged 21`; one of `possessives` may stand for it, `a 21-year-old woman's`
    * has: a noun phrase of what the hand has, `fair skin`, or has not, `no moles`
    * wears: the same of what is worn, `a gold ring`, `no accessories`
    * pose: an aside, `fingers spread wide`
    * setting: where or how, `on a wooden table`
    * phrase: any other aside
    * remark: column and value, `lighting: dim`

    A wording that ends with a full stop is a sentence of its own. One of `adjectives` may be said before the hand
    instead, `fair-skinned`.
    """

    slot: Slot
    forms: tuple[str, ...]
    adjectives: tuple[str, ...] = ()
    possessives: tuple[str, ...] = ()
