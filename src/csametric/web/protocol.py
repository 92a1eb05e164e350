"""How long a client may take to send the headers of a request."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_FOR_HEADERS = 10.0


class HeaderTimeoutProtocol(H11Protocol):
    """uvicorn's HTTP protocol, closing connections that do not send whole headers in `SECONDS_FOR_HEADERS`.

    Without a limit, a few silent clients hold every connection that `limit_concurrency` allows. uvicorn itself limits only
    how long a connection may be idle after an answer.
    """

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(SECONDS_FOR_HEADERS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Stop the clock once the headers are there; start it when the next request begins to arrive."""
        super().data_received(data)
        waiting = self.conn.their_state is h11.IDLE
        if not waiting:
            self._stop_clock()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(SECONDS_FOR_HEADERS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _stop_clock(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
