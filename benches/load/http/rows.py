"""The rows of the HTTP load benchmark: what one request is, and how many there are at once."""

from __future__ import annotations

import dataclasses

BODY_BYTES = 1024


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    mode: str  # of loadgen: plain, tls, tls-new
    connections: int
    unique: bool = False

    @property
    def scheme(self) -> str:
        return "http" if self.mode == "plain" else "https"


ROWS = [
    Row("plain-1", "plain HTTP, keep-alive, 1 connection", "plain", 1),
    Row("plain-32", "plain HTTP, keep-alive, 32 connections", "plain", 32),
    Row("tls-1", "HTTPS, keep-alive, 1 connection", "tls", 1),
    Row("tls-32", "HTTPS, keep-alive, 32 connections", "tls", 32),
    Row("tls-new-16", "HTTPS, a new connection per request, 16 at a time", "tls-new", 16),
    Row("plain-unique-32", "plain HTTP, keep-alive, 32 connections, no two requests alike", "plain", 32, True),
    Row("tls-unique-32", "HTTPS, keep-alive, 32 connections, no two requests alike", "tls", 32, True),
]
