"""`python -m tests.simulation.table`: which seed is the first to notice each sabotage, and what it notices."""

import pytest

from tests.simulation.sabotages import SABOTAGES
from tests.simulation.shrink import first_failure

SEEDS_MAX = 2000


def main() -> None:
    """Print the table."""
    for sabotage in SABOTAGES:
        with pytest.MonkeyPatch.context() as patch:
            sabotage(patch)
            failure = first_failure(range(SEEDS_MAX))
        seed = "-" if failure is None else str(failure.seed)
        noticed = "nothing" if failure is None else failure.found[0].strip().splitlines()[-1]
        print(f"{sabotage.__name__:<40} {seed:>5}  {noticed[:150]}", flush=True)


if __name__ == "__main__":
    main()
