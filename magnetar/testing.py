"""The test kit's front door: `from magnetar.testing import given`."""

from magnetar.aggregates import given

__all__ = ["given"]
