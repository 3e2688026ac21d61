"""Serving the page: on this machine alone, without telling anybody, within bounds."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from captum_sgcampp.demo.local_only import LocalOnly, blocked_paths, forbid_downloads
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.page import make_page
from captum_sgcampp.demo.quiet_gradio import gradio as gr

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_UPLOAD, MOST_WAITING, MOST_VISITORS, THREADS = "10mb", 32, 64, 12
# Fonts of the visitor's machine: Gradio's own theme asks another host for them.
FONTS, CODE_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
CSS = """
footer {display: none !important}
.gradio-container {max-width: 1500px !important; margin: 0 auto !important}
.min_value, .max_value {color: var(--body-text-color) !important}  /* Gradio's gray is too faint */
#run {background: #c2410c !important; color: #fff !important}
#cancel {background: #b91c1c !important; color: #fff !important}
"""


def serve(
    networks: Networks,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: Sequence[tuple[str, str]] = (),
) -> Any:
    """Serve the page, in a thread of its own.

    Args:
        networks: that visitors can choose.
        host: address to listen at. Others than this machine's own need `auth`.
        port: None: the first free one from 7860.
        auth: names and passwords.

    Returns:
        *gradio.Blocks*, whose `block_thread` waits until the process is stopped, and whose `close` ends it.

    Raises:
        ValueError: an open address without `auth`.
        OSError: no such port is free.
    """
    _check_auth(host, auth)
    page = make_safe_page(networks)
    page.launch(
        server_name=host, server_port=port, auth=list(auth) or None, **launch_options(), prevent_thread_lock=True
    )
    return page


def check_host(host: str, auth: Sequence[tuple[str, str]]) -> None:
    """Refuse an address that others reach without a password, and warn of one with it.

    Raises:
        ValueError: no names and passwords.
    """
    _check_auth(host, auth)
    if host not in LOOPBACK:
        print(f"warning: others can reach {host}; passwords and pictures travel unencrypted", file=sys.stderr)


def _check_auth(host: str, auth: Sequence[tuple[str, str]]) -> None:
    if host not in LOOPBACK and not auth:
        raise ValueError(f"--auth: expected a file of names and passwords, since others can reach {host}, found none")


def make_safe_page(networks: Networks) -> Any:
    """The page, with its temporary files in a folder of its own and a bounded queue."""
    cache = tempfile.mkdtemp(prefix="captum-sgcampp-demo-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = cache
    forbid_downloads()
    page = make_page(networks)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=2, api_open=False)
    return page


def launch_options() -> dict[str, Any]:
    """What `launch` gets besides the address."""
    from starlette.middleware import Middleware

    return {
        "share": False,
        "allowed_paths": [],
        "blocked_paths": blocked_paths(os.environ["GRADIO_TEMP_DIR"]),
        "max_file_size": MOST_UPLOAD,
        "max_threads": THREADS,
        "state_session_capacity": MOST_VISITORS,
        "app_kwargs": {"middleware": [Middleware(LocalOnly)]},
        "enable_monitoring": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "show_error": False,
        "theme": gr.themes.Default(font=FONTS, font_mono=CODE_FONTS),
        "css": CSS,
    }
