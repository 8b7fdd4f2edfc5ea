"""Base classes of the terms of the loss."""

from pydantic import Field

from handreid.recipe.base import Value


class Term(Value):
    """What all terms have."""

    weight: float = Field(1.0, gt=0)
    """Factor of this term in the loss."""

    @property
    def needs_pairs(self) -> bool:
        """Whether a batch must hold several photos of one identity."""
        return False

    @property
    def takes_mixed_photos(self) -> bool:
        """Whether the term is defined for a photo mixed of two identities."""
        return True

    @property
    def needs_texts(self) -> bool:
        """Whether the term reads the sentences that a head composes of photos."""
        return False


class LearnedTerm(Term):
    """A term with parameters of its own."""

    lr: float | None = Field(None, gt=0)
    """Learning rate of this term's own parameters; null is the rate of new layers."""
