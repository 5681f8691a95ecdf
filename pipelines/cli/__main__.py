"""`python -m magnetar.pipelines.cli` is `magnetar`; the supervisor starts its parts so."""

from . import main

main()
