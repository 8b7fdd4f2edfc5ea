"""A hand's anatomy as the cell `anatomy` of a table: numbers that belong to the person, not to the photo.

A tower that predicts them has to see the hand through pose, light and camera (the term `measurements` of the stage
`pretrain`). One text in place of 78 columns, as with `landmarks`.
"""

from handreid.data.rendered.anatomy import Hand, Person, Side


def measurements(who: Person, side: Side) -> str:
    """The cell: 78 numbers, separated by spaces, to four decimals. Lengths are in cm.

    The person's skin and age (4), the palm (4), for each digit from the thumb its bones, half widths, bow, base and
    nail, the nails' shape (5), and proportions (12), which a photo shows at any scale.
    """
    return " ".join(
        f"{value:.4f}" for value in (*_person(who), *_hand(who.hands[side]), *_proportions(who.hands[side]))
    )


def _person(who: Person) -> list[float]:
    return [who.tone, who.warmth, float(who.age), who.hairiness]


def _hand(hand: Hand) -> list[float]:
    values = [hand.breadth, hand.heel, hand.wrist, hand.web]
    for digit in hand.digits:
        values += [*digit.phalanges, *digit.radii, digit.bow, *digit.base, digit.nail.length]
    middle = hand.digits[2]
    nail = middle.nail
    return [*values, middle.waist, nail.width, nail.free_edge, nail.squareness, nail.moon]


def _proportions(hand: Hand) -> list[float]:
    lengths = [sum(digit.phalanges) for digit in hand.digits]
    widths = [digit.radii[1] for digit in hand.digits]
    shares = [value / hand.breadth for value in (*lengths, *widths, hand.wrist)]
    return [*shares, lengths[1] / lengths[3]]
