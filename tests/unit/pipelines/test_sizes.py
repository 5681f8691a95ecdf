"""Numbers of bytes, for people."""

import pytest
from magnetar.pipelines.cli.shared import sized


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (74_835_400_000, "74.8 GB"),
        (10**18, "1,000.0 PB"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(count: int, shown: str) -> None:
    assert sized(count) == shown
