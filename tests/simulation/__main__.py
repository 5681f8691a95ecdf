"""`python -m tests.simulation SEED [STEPS [FAULT …]]`: repeat one run, and print its schedule and what is wrong."""

import sys

from tests.simulation.check import violations
from tests.simulation.conftest import FAULTS, STEPS
from tests.simulation.scheduler import simulate

seed, steps = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
allowed = frozenset(name.replace("-", " ") for name in sys.argv[3:]) if len(sys.argv) > 2 else frozenset(FAULTS)
simulation = simulate(seed, steps, allowed=allowed)
print("\n".join(simulation.trace))
found = violations(simulation)
print("\n".join(found) if found else "no violation")
sys.exit(1 if found else 0)
