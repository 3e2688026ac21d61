"""The command `demo`: what its arguments stand for."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_sgcampp.commands.choices import BUNDLED
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.serve import check_host, serve


def run(arguments: argparse.Namespace) -> None:
    """Load the networks, and serve the page until the process is stopped."""
    auth = _names_and_passwords(arguments.auth)
    check_host(arguments.host, auth)
    models = arguments.model or ([] if arguments.model_factory else [BUNDLED])
    networks = Networks(models, arguments.model_factory)
    page = serve(networks, arguments.host, arguments.port, auth)
    print(f"the page is at {page.local_url} (Ctrl-C stops it)")
    page.block_thread()


def _names_and_passwords(path: Path | None) -> list[tuple[str, str]]:
    """The lines `NAME:PASSWORD` of a file."""
    if path is None:
        return []
    lines = [line.partition(":") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or not all(name and colon and password for name, colon, password in lines):
        raise ValueError(f"--auth: expected lines of NAME:PASSWORD, found another in {path.name}")
    return [(name, password) for name, _, password in lines]
