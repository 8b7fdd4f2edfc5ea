"""A run as a tracker keeps it, one file per tracker.

Each writes with its tracker's own package. Lightning's loggers would do the same, but they import torch, which takes
the worker process ten seconds and longer.
"""
