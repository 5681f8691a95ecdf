"""docs/without-magnetar.md: its programs, as they stand there, against a worker on a real broker."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.logs.pulsar_admin import PulsarAdmin
from magnetar.schemas import LogUnavailable

from tests.conftest import ROOT
from tests.docs.pages import Block, commands, files, parts
from tests.pulsar_rig import Existing

PAGE = ROOT / "docs" / "without-magnetar.md"
HERE = f"run by tests/pulsar/{Path(__file__).name}"
DEADLINE_SECONDS = 240
VECTORS = json.loads((ROOT / "tests" / "vectors" / "murmur3.json").read_text())


class Reader:
    """Somebody with a folder of the page's files, who types what it says, for a broker and a tenant of their own."""

    def __init__(self, folder: Path, broker: Existing) -> None:
        self.folder = folder
        self.tenant = broker.new_tenant()
        self._own = {
            "http://localhost:8080": broker.admin_url,
            "pulsar://localhost:6650": broker.service_url,
            "acme/": f"{self.tenant}/",
            "python ": f"{sys.executable} ",
        }
        for name, text in {**files(ROOT / "README.md"), **files(PAGE)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(self.own(text))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAGNETAR_")}
        self.environment = clean | broker.environment(self.tenant)

    def own(self, text: str) -> str:
        """The page's text with the places of this broker."""
        for said, meant in self._own.items():
            text = text.replace(said, meant)
        return text

    def type(self, command: str, wanted: str | None = None) -> None:
        """Run a command, which must succeed, and print what is wanted, if that is said.

        One that reads may be repeated: a worker decides in its own time, and a busy broker may not answer in theirs.
        """
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (ran := self._run(command)).returncode != 0 or (wanted is not None and shown_as(ran.stdout) != wanted):
            if " read" not in command or time.monotonic() > deadline:
                worker = (self.folder / "worker.log").read_text()
                pytest.fail(f"{command} ended with {ran.returncode}, and printed\n{ran.stdout}\n{ran.stderr}\n{worker}")

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.own(command),
            check=False,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def reader(tmp_path: Path, broker: Existing, open_log: Callable[..., PulsarLog]) -> Iterator[Reader]:
    """The reader, and a worker of the README's pipeline."""
    reader, admin = Reader(tmp_path, broker), open_log()._admin
    command = [sys.executable, "-m", "magnetar.pipelines.cli", "run", "shop"]
    with (tmp_path / "worker.log").open("w") as output:
        worker = subprocess.Popen(command, cwd=tmp_path, env=reader.environment, stdout=output, stderr=output)
    try:
        topics = [f"{reader.tenant}/shop/order-{kind}" for kind in ("commands", "events")]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not all(is_there(admin, topic) for topic in topics):
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
            time.sleep(0.2)
        yield reader
    finally:
        worker.terminate()
        worker.wait()


def is_there(admin: PulsarAdmin, topic: str) -> bool:
    """Whether a topic has its schema. A broker that is just making a tenant may have no answer."""
    try:
        return bool(admin.partitions(topic) and admin.schemas(topic))
    except LogUnavailable:
        return False


def shown_as(said: str) -> str:
    """The text without colours, and with every command id the same."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", re.sub(r"\x1b\[[0-9;]*m", "", said))


def test_plain_clients_send_and_read_and_what_is_misrouted_is_parked_with_the_reason(reader: Reader) -> None:
    blocks = [each for each in parts(PAGE) if isinstance(each, Block) and each.not_run == HERE]
    assert len(blocks) == 3
    for number, block in enumerate(blocks):
        if number == 2:
            aggregate = "'pulsar://localhost:6650', 'acme/shop/order'"
            reader.type(f"python -c \"from send import send; send({aggregate}, '42', 'Ship', {{}}, partition=3)\"")
        for command, said in commands(block):
            reader.type(command, shown_as(said))


@pytest.mark.parametrize("partitions", [16, 7])
def test_the_pages_route_is_the_published_one(partitions: int) -> None:
    namespace: dict[str, Any] = {}
    exec(files(PAGE)["shop_log.py"], namespace)
    for vector in VECTORS:
        assert namespace["partition_of"](vector["id"], partitions) == vector[f"partition_of_{partitions}"]
