"""The store: one engine for each data folder and process."""

import subprocess
import sys
from pathlib import Path

OPEN = """
import sys
from pathlib import Path
from magnetar.projections.store import Store, embedded_dsn
store = Store(embedded_dsn(Path(sys.argv[1])))
print("open", flush=True)
input()
"""


def test_an_engine_that_is_open_elsewhere_names_the_process_that_has_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        holder.communicate("\n")
    assert f"DataFolderError: Another process, {holder.pid}, has the embedded ClickHouse" in second.stderr
