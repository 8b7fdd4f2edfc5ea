"""Text fragments for descriptions of stages."""

from collections.abc import Sequence


def counted(number: int, unit: str) -> str:
    """`1 epoch`, `1,200 epochs`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def rate(value: float) -> str:
    """A learning rate, short: `0.01`, `3.5e-4`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{value:g}" if value >= 0.01 else f"{float(mantissa):g}e{int(exponent)}"
