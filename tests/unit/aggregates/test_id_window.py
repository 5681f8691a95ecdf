"""An id is found or expired: never unknown twice, however wrong clocks are and however late a publication lands."""

import random

import pytest
from magnetar.aggregates.budget import Allowance
from magnetar.aggregates.id_window import IdWindow, packed
from magnetar.schemas import uuid7

START_MS = 1_700_000_000_000
WINDOW_MS = 60_000


def deliveries(rng: random.Random) -> list[tuple[bytes, int]]:
    """Ids with their publish times, in the order of the log: some repeated, some late, some by wrong clocks."""
    made: list[tuple[bytes, int]] = []
    for n in range(3000):
        now_ms = START_MS + n * 200
        offset_ms = rng.choice((0, 0, 0, 0, 0, 0, 40 * WINDOW_MS, -40 * WINDOW_MS, 3_000, -3_000))
        id = packed(uuid7(now_ms + offset_ms - rng.randrange(2_000), rng.getrandbits(74)))
        made.append((id, now_ms + offset_ms))
        if rng.random() < 0.2:
            made.append((id, now_ms + offset_ms + rng.randrange(3 * WINDOW_MS)))
    late = rng.sample(made, 400)  # the same message, or a publication that was stuck on its way, with its old stamp
    for each in late:
        made.insert(rng.randrange(len(made)), each)
    return made


@pytest.mark.parametrize("seed", range(20))
def test_no_id_is_decided_twice(seed: int) -> None:
    rng = random.Random(seed)
    window = IdWindow(window_ms=WINDOW_MS, allowance=Allowance(rng.choice((500, 100_000))))
    decided: dict[bytes, int] = {}
    expired = 0
    for number, (id, published_ms) in enumerate(deliveries(rng), 1):
        if (found := window.find(id)) is not None:
            assert decided.get(id, found) == found
            continue
        if window.is_expired(id, published_ms):
            expired += 1
        else:
            assert id not in decided, f"decided twice, at {decided[id]} and {number}"
            decided[id] = number
        window.remember(id, number, published_ms)
        if rng.random() < 0.002:  # a recovery from a checkpoint
            frozen, window = window.freeze(), IdWindow(window_ms=WINDOW_MS, allowance=Allowance(100_000))
            window.restore(frozen.forgotten_ms, frozen.stamps)
            for piece in frozen.pieces():
                window.restore_ids(piece)
            assert len(window) == len(frozen)
    assert len(decided) > 1500
    assert expired > 0


def test_a_few_publishers_with_wrong_clocks_expire_nobody_elses_commands() -> None:
    window, rng = IdWindow(window_ms=WINDOW_MS), random.Random(1)
    for n in range(20_000):
        now_ms = START_MS + n * 50
        if n % 5 == 0:
            ahead_ms = now_ms + 30 * WINDOW_MS
            window.remember(packed(uuid7(ahead_ms, rng.getrandbits(74))), n, ahead_ms)
        id = packed(uuid7(now_ms - 1000, rng.getrandbits(74)))
        assert not window.is_expired(id, now_ms)
        window.remember(id, n, now_ms)


def test_ids_are_forgotten_after_twice_the_window() -> None:
    window, rng = IdWindow(window_ms=WINDOW_MS), random.Random(1)
    for n in range(20_000):
        window.remember(packed(uuid7(START_MS + n * 50, rng.getrandbits(74))), n, START_MS + n * 50)
    kept = 2 * WINDOW_MS // 50
    assert kept <= len(window) <= kept * 1.1


def test_ids_that_differ_in_one_byte_or_stand_across_others_are_told_apart() -> None:
    window, rng = IdWindow(window_ms=WINDOW_MS), random.Random(1)
    ids = [packed(uuid7(START_MS, rng.getrandbits(74))) for _ in range(5000)]
    for number, id in enumerate(ids):
        window.remember(id, number, START_MS)
    assert [window.find(id) for id in ids] == list(range(5000))
    for id in ids[:200]:
        assert window.find(id[:-1] + bytes([id[-1] ^ 1])) is None
