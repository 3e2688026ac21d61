"""Serving the page: on this machine alone, without telling anybody, within bounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from captum_sgcampp.demo.flat_memory import (
    bound_messages,
    forget_session,
    keep_numbers_of_components,
    share_one_arena,
)
from captum_sgcampp.demo.local_only import LocalOnly, blocked_paths, forbid_downloads
from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.page import make_page
from captum_sgcampp.demo.quiet_gradio import gradio as gr
from captum_sgcampp.demo.slow_senders import end_slow_senders
from captum_sgcampp.demo.temporary_files import new_cache

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_UPLOAD, MOST_WAITING, MOST_VISITORS, THREADS = "10mb", 32, 64, 12
# Fonts of the visitor's machine: Gradio's own theme asks another host for them.
FONTS, CODE_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
CSS = """
footer {display: none !important}
.gradio-container {max-width: 1500px !important; margin: 0 auto !important}
.min_value, .max_value {color: var(--body-text-color) !important}  /* Gradio's gray is too faint */
input[role="combobox"] {text-overflow: ellipsis; padding-right: 2rem !important}  /* room for the arrow */
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
    return launch(make_safe_page(networks), host, server_name=host, server_port=port, auth=list(auth) or None)


def launch(page: Any, host: str = "", **options: Any) -> Any:
    """Serve a page of `make_safe_page`, and return it.

    Args:
        page: that is not yet served.
        host: see `launch_options`.
        options: of Gradio's own `launch`.
    """
    page.launch(**launch_options(host), **options, prevent_thread_lock=True)
    end_slow_senders(page)
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
    new_cache()
    forbid_downloads()
    share_one_arena()
    keep_numbers_of_components()
    page = make_page(networks)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=2, api_open=False)
    bound_messages(page)

    def gone(request: gr.Request) -> None:
        forget_session(page, str(request.session_hash))

    with page:
        page.unload(gone)
    return page


def launch_options(host: str = "") -> dict[str, Any]:
    """What `launch` gets besides the address.

    Args:
        host: where the page is served. On this machine alone, it answers to no other name: pages of the internet could
            give theirs this address (DNS rebinding). Empty: where Gradio's environment variable says.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    is_local = (host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")) in LOOPBACK
    hosts = list(LOOPBACK) if is_local else ["*"]
    cache = os.environ["GRADIO_TEMP_DIR"]
    return {
        "share": False,
        "allowed_paths": [],
        "blocked_paths": blocked_paths(cache),
        "max_file_size": MOST_UPLOAD,
        "max_threads": THREADS,
        "state_session_capacity": MOST_VISITORS,
        "app_kwargs": {
            "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(LocalOnly, cache=cache)]
        },
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
