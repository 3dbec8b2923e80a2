"""Engine of Compression Explorer. It imports no user-interface library."""

__version__ = "0.1.0"
