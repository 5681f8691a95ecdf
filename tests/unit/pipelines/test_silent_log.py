"""A log that gives no events any more, as Pulsar does when a right is taken away or a token expires."""

from pathlib import Path

from tests.unit.pipelines.test_rebuild import run

DENIED = """
from pathlib import Path
from structlog.testing import capture_logs
from magnetar.schemas import AccessDenied
from tests.unit.pipelines.boards import Board1, Running

running = Running(Path(sys.argv[1]))
running.schedule("flight-1")
projector = running.projector(Board1)
end = running.log.end

def denied(topic, partition):
    raise AccessDenied("The token from MAGNETAR_TOKEN_FILE expired.", cure="Get a new one.")

running.log.end = denied
with capture_logs() as logs:
    projector.step()
assert not [each for each in logs if each["event"] == "events cannot be read"], "it is not asked at every step"
projector._live._look_at = 0.0
with capture_logs() as logs:
    projector.step()
said = [each for each in logs if each["event"] == "events cannot be read"]
print(said)
assert [(each["aggregate"], each["what"], each["cure"]) for each in said] == [
    ("Flight", "The token from MAGNETAR_TOKEN_FILE expired.", "Get a new one.")
]
running.log.end = end
projector.close()
running.close()
print("done")
"""


def test_a_projector_says_now_and_then_that_no_events_can_be_read(tmp_path: Path) -> None:
    assert "done" in run(DENIED, tmp_path)
