"""Compression Explorer's engine: it knows compression and has never heard of a screen."""

__version__ = "0.1.0"
