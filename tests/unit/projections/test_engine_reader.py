"""What a question to the embedded engine may take."""

import os
from pathlib import Path

from magnetar.projections.engine_reader import machine_bytes


def test_a_container_that_may_have_less_than_the_machine_has_counts(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    second, first = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    assert machine_bytes([second, first]) == machine, "neither is there"
    second.write_text("max\n")
    first.write_text("9223372036854771712\n")
    assert machine_bytes([second, first]) == machine, "neither is a limit"
    first.write_text("6442450944\n")
    assert machine_bytes([second, first]) == 6442450944
    second.write_text("1073741824\n")
    assert machine_bytes([second, first]) == 1073741824
