"""`python -m tests.simulation.repeat SEED`: repeat a run and print its schedule; `--help` says what else."""

import argparse
import sys

import pytest

from tests.simulation.choices import read
from tests.simulation.sabotages import SABOTAGES, TABLE_SABOTAGES
from tests.simulation.shrink import TURNS, Failure, run, story


def main() -> int:
    """Run it once more, and print its schedule and what is wrong."""
    parser = argparse.ArgumentParser(description="Repeat a run of the simulation.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--decisions", type=read, help="as a failing run prints them; without, all are drawn")
    parser.add_argument("--sabotage", choices=[each.__name__ for each in (*SABOTAGES, *TABLE_SABOTAGES)])
    parser.add_argument("--shrink", action="store_true", help="find and print the smallest failing schedule")
    options = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        for sabotage in (*SABOTAGES, *TABLE_SABOTAGES):
            if sabotage.__name__ == options.sabotage:
                sabotage(patch)
        world, found = run(options.seed, options.turns, repeated=options.decisions, tracing=True)
        if options.shrink and found:
            print(story(Failure(options.seed, options.turns, world.choices.made, found)))
        else:
            print("\n".join([*world.stage.trace, *(found or ["no violation"])]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
