"""`python -m tests.simulation.table`: which seed is the first to notice each sabotage, and what it notices."""

import pytest

from tests.simulation.sabotages import SABOTAGES, TABLE_SABOTAGES
from tests.simulation.shrink import first_failure
from tests.simulation.world import TABLES_FROM

SEEDS_MAX = 2000


def main() -> None:
    """Print the table."""
    for sabotage in (*SABOTAGES, *TABLE_SABOTAGES):
        start = TABLES_FROM if sabotage in TABLE_SABOTAGES else 0
        with pytest.MonkeyPatch.context() as patch:
            sabotage(patch)
            failure = first_failure(range(start, start + SEEDS_MAX))
        seed = "-" if failure is None else str(failure.seed)
        noticed = "nothing" if failure is None else failure.found[0].strip().splitlines()[-1]
        print(f"{sabotage.__name__:<40} {seed:>5}  {noticed[:150]}", flush=True)


if __name__ == "__main__":
    main()
