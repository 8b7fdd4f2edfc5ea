"""Sources of photos: each reads one layout on disk and gives a manifest with notes on what it found."""

from handreid.data.sources.folders import folders
from handreid.data.sources.hands11k import hands11k, hands11k_metadata
from handreid.data.sources.hashed import hashed
from handreid.data.sources.hd import hd
from handreid.data.sources.table import csv

__all__ = ["csv", "folders", "hands11k", "hands11k_metadata", "hashed", "hd"]
