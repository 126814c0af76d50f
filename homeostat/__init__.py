"""What every room may import: the vocabulary and the memory of the platform."""

__version__ = "0.1.0"
