"""`parked`."""


def parked() -> None:
    """Placeholder."""
