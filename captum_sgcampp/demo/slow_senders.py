"""Clients that send slowly or nothing: their connections end, so that there is room for others.

uvicorn waits for a request as long as its sender likes, and each connection holds a file descriptor.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

WHOLE_SECONDS = 120.0  # until a request is whole: 10 MB at 0.7 Mbit/s
LOOK_SECONDS = 5.0
MOST_UNFINISHED = 200  # connections without a whole request
YOUNG_SECONDS = 1.0  # what younger connections sent may not be read yet


class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that ends when its next request is not whole in time.

    Of too many that wait, those that have waited longest make room for a new one.
    """

    since = 0.0  # of the event loop's clock

    @property
    def is_waiting(self) -> bool:
        """Whether the client has something to send first: the head or the body of a request."""
        nothing_to_do = self.cycle is None or self.cycle.more_body or self.cycle.response_complete
        return nothing_to_do and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self.since = self.loop.time()
        waiting = [one for one in self.connections if isinstance(one, Impatient) and one.is_waiting]
        for one in sorted(waiting, key=lambda one: one.since)[:-MOST_UNFINISHED]:
            if self.since - one.since > YOUNG_SECONDS:
                one.transport.abort()
        self._look()

    def on_response_complete(self) -> None:
        """From now on the next request is waited for."""
        self.since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self.is_waiting and self.loop.time() - self.since > WHOLE_SECONDS:
            self.transport.abort()
        else:
            self.loop.call_later(LOOK_SECONDS, self._look)


def end_slow_senders(page: Any) -> None:
    """From now on, of a page that is served."""
    page.server.config.http_protocol_class = Impatient
