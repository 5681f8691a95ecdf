"""Running many seeds, and making a failing one small."""

from tests.simulation.check import violations
from tests.simulation.scheduler import Simulation, simulate

STEPS = 200
FAULTS = (
    "crash",
    "freeze",
    "lost confirmation",
    "broken connection",
    "late landing",
    "resend",
    "lost acknowledgement",
    "reconnect",
    "wrong grant",
)


def first_failure(seeds: range) -> tuple[int, list[str]] | None:
    """The first seed with a violation, and what is wrong."""
    for seed in seeds:
        if found := violations(simulate(seed, STEPS)):
            return seed, found
    return None


def shrunk(seed: int) -> tuple[Simulation, int, frozenset[str]]:
    """The same seed with as few kinds of faults and as few steps as still go wrong."""
    allowed = frozenset(FAULTS)
    for fault in FAULTS:
        if violations(simulate(seed, STEPS, allowed=allowed - {fault})):
            allowed -= {fault}
    steps = next(n for n in range(STEPS + 1) if n == STEPS or violations(simulate(seed, n, allowed=allowed)))
    return simulate(seed, steps, allowed=allowed), steps, allowed


def story(seed: int, found: list[str]) -> str:
    """A failing run for people: what is wrong, how to repeat it, and its smallest schedule."""
    simulation, steps, allowed = shrunk(seed)
    lines = [
        f"seed {seed}: {found[0]}",
        f"repeat it: python -m tests.simulation {seed} {steps} "
        + " ".join(f.replace(" ", "-") for f in sorted(allowed)),
        *simulation.trace[: simulation.trace.index("healed") if "healed" in simulation.trace else None],
        *violations(simulation),
    ]
    return "\n".join(lines)
