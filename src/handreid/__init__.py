"""Recognise a person from a photo of a hand."""

__version__ = "0.1.0"
