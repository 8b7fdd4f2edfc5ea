"""A run as a tracker keeps it, one file per tracker; all of them write through Lightning's loggers."""
