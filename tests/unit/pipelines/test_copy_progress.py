"""What `magnetar copy` says while it goes on; tests/chaos copies."""

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.copy_progress import LINE_SECONDS, CopyLines
from magnetar.pipelines.copying import CopyProgress


class ClockByHand(SystemClock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_it_is_said_first_what_is_done_and_then_how_far_it_is_every_two_seconds() -> None:
    clock, said = ClockByHand(), list[str]()
    lines = CopyLines(clock, said.append)
    lines.begin("shop", "shop2")
    assert said == ["Looking whether shop has decided all commands; then its log is copied to shop2, and compared."]
    said.clear()
    for doing, commits in (
        ("looking", 3),
        ("looking", 4),
        ("taking", 64),
        ("copying", 1000),
        ("comparing", 2000),
        ("done", 3000),
    ):
        for _ in range(2):
            lines.show(CopyProgress("Order", doing, commits, 3000))
            clock.now += LINE_SECONDS / 2
    assert said == [
        "Order: 4 of 3,000 partitions looked at",
        "Order: 64 of 3,000 new partitions taken",
        "Order: 1,000 of 3,000 commits copied",
        "Order: 2,000 of 3,000 commits compared",
    ]
