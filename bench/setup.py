"""``python -m bench setup`` installs the peers one by one, as wheels: one that fails costs only itself."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"


def requirements() -> list[str]:
    """The `bench` extra of the installed pymgan, as pyproject.toml lists it."""
    wanted = []
    for line in importlib.metadata.requires("pymgan") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and "extra" in str(marker) and marker.evaluate({"extra": "bench"}):
            wanted.append(f"{requirement.name}{requirement.specifier}")
    return wanted


def main(argv: list[str]) -> int:
    """Returns 0, also when a peer could not be installed: each is optional."""
    argparse.ArgumentParser(prog="python -m bench setup", description=__doc__).parse_args(argv)
    failed = []
    for requirement in requirements():
        print(f"--- {requirement}", flush=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--only-binary",
            ":all:",
            "-c",
            str(CONSTRAINTS),
        ]
        if subprocess.run([*command, requirement], check=False).returncode:
            failed.append(requirement)
    print("not installed: " + ", ".join(failed) if failed else "all peers are installed")
    return 0
