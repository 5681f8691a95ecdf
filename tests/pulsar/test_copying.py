"""`magnetar copy` on Pulsar, killed at each step."""

from pathlib import Path

from tests.chaos.copying import copied_through_kills
from tests.pulsar_rig import Existing


def test_a_copy_that_is_killed_at_each_step_is_whole_in_the_end_and_goes_on(tmp_path: Path, broker: Existing) -> None:
    copied_through_kills(tmp_path, "moved", broker.environment(broker.new_tenant()))
