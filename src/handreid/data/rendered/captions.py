"""Captions of rendered photos: several wordings, each of a few of the things that are visible."""

from handreid.data.captioning.chooser import Chooser
from handreid.data.captioning.sentence import distinct, sentence
from handreid.data.captions import join_wordings
from handreid.data.rendered.anatomy import Person
from handreid.data.rendered.appearance import visible_facts
from handreid.data.rendered.scene import Scene
from handreid.data.rendered.skin_marks import Surface

WORDINGS = 4
SHARE = 0.65  # of the facts, said in each wording
MOST = 6  # facts in a wording: with more, a sentence could be longer than CLIP's 77 tokens


def captions(seed: int, photo: str, who: Person, marks: Surface, scene: Scene) -> str:
    """The cell `caption` of a photo; the same seed and path of the photo give the same wordings."""
    facts = visible_facts(who, marks, scene)

    def wording(number: int) -> str:
        chooser = Chooser(seed, photo, number)
        said = [fact for fact in chooser.shuffled(facts) if chooser.chance(SHARE)][:MOST]
        return sentence(scene.aspect, scene.side, said, chooser)

    return join_wordings(distinct(wording, WORDINGS))
