"""Writes the README of the chart: what it says of each value are the comments `# --` of values.yaml.

`python tools/chart_readme.py` writes it; with `--print`, it only prints it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parent.parent / "helm" / "magnetar"
HEAD: Final = """\
# The chart `magnetar`

Runs one pipeline on a cluster: a Deployment of workers for each aggregate, and a projector with the tables, or
several with tables of their own. It needs an Apache Pulsar, an image with your package, and Helm 4. docs/kubernetes.md
in Magnetar's repository says how it is used, and what was tested.

```console
magnetar helm chart deploy                          # this chart, from the installed package
magnetar helm values shop.pipeline > values.yaml    # the names, from the declaration
helm install shop deploy/magnetar --namespace shop --create-namespace --values values.yaml
```

Values are checked against `values.schema.json`: a misspelled one is refused. This page is made from the comments in
`values.yaml`.

## Upgrading

```console
magnetar helm chart deploy-new && magnetar helm values shop.pipeline > derived.yaml   # compare it with yours
helm upgrade shop deploy-new/magnetar --namespace shop --values values.yaml --wait
helm rollback shop --namespace shop                  # if it does not please
```

- **Order**: first the Job, by the new image: it makes what is missing of topics and schemas, and examines the
  cluster. If it fails, no pod is touched: `kubectl logs job/shop-provision --all-containers`. Then the workers,
  one at a time, and at the same time the projector, which ends before the new one begins: the tables stand still
  meanwhile, and no command waits.
- **Chart and image** are tested together in one version of Magnetar: upgrade both at once.
- **The declaration**: events and fields that are added need nothing. A new aggregate needs its entry under `workers`,
  or the Job refuses. `pipeline.partitions` can never change.
- **Projections** whose declaration has changed show the old rows, and get no new ones, until they are rebuilt: by the
  Job of `rebuild.enabled`, or `magnetar rebuild`.
- **A rollback** provisions nothing. Tables that were rebuilt for the new code stand still under the old one, until
  `magnetar rebuild --rollback` or `--changed`. What the new code has written stays: old workers leave the partitions
  alone whose events they do not know (`MagnetarPartitionsRefused`).
- **The volume** of a projector without `clickhouse.url` is a StatefulSet's: another `projector.storage` is refused by
  Kubernetes. Enlarge the claim itself.
- **A table** that moves into a group of `projectors`, or out of it, is taken from the old pods by the new ones: both
  may log `partition lost` until the old ones have ended, and no row is lost or there twice.
- **`clickhouse.url`**, set or unset, puts a Deployment in the place of the StatefulSet, or the other way round; the
  tables are filled from the log, and the claim stays until you delete it.
- **No definitions** of other kinds come with the chart: those of KEDA and of the Prometheus operator are upgraded
  with them.

## Values

| value | default | |
|---|---|---|
"""


def readme() -> str:
    """The page."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    rows = [f"| `{path}` | `{_shown(values, path)}` | {about} |" for path, about in comments(text)]
    return HEAD + "\n".join(rows) + "\n"


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Each value that has a comment: its path, and the comment."""
    path: list[tuple[int, str]] = []
    about: list[str] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if (comment := re.fullmatch(r"\s*# (-- )?(.*)", line)) is not None:
            if comment[1]:
                about = [comment[2]]
            elif about:
                about.append(comment[2])
        elif (key := re.match(r"\s*([A-Za-z]+):", line)) is not None:
            path = [(at, name) for at, name in path if at < indent] + [(indent, key[1])]
            if about:
                yield ".".join(name for _, name in path), " ".join(about)
            about = []


def _shown(values: Any, path: str) -> str:
    for key in path.split("."):
        values = values[key]
    return json.dumps(values)


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(readme())
    else:
        (CHART / "README.md").write_text(readme(), encoding="utf-8")
