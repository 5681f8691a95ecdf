"""All flights that left New York City in 2013, as an event-sourced pipeline."""

from .pipeline import flights

__all__ = ["flights"]
