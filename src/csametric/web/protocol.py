"""A time limit for the headers of a request."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS_FOR_HEADERS = 10.0


class HeaderTimeoutProtocol(H11Protocol):
    """uvicorn's HTTP protocol, closing connections whose headers are incomplete after `SECONDS_FOR_HEADERS`.

    Without a limit, a few silent clients can occupy every connection that `limit_concurrency` allows; uvicorn itself limits
    only how long a connection may be idle after a response.
    """

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(SECONDS_FOR_HEADERS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Stop the timer once the headers are complete; start it when the next request begins to arrive."""
        super().data_received(data)
        headers_incomplete = self.conn.their_state is h11.IDLE
        if not headers_incomplete:
            self._stop_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(SECONDS_FOR_HEADERS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
