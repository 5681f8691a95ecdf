"""Maps the top-level folders into the one import package `magnetar`, nested folders included.

pyproject.toml could only list every package by hand (its automatic discovery cannot rename), and a folder forgotten in
such a list is missing from the wheel without any error.
"""

from setuptools import find_packages, setup

ROOMS = ("schemas", "aggregates", "projections", "pipelines", "helm")
IN_ROOMS = [pattern for room in ROOMS for pattern in (room, f"{room}.*")]

setup(
    packages=["magnetar", *(f"magnetar.{package}" for package in find_packages(include=IN_ROOMS))],
    package_dir={"magnetar": "magnetar", **{f"magnetar.{room}": room for room in ROOMS}},
)
