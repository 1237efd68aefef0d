"""The rows of the HTTP load benchmark: what one request is, and how many there are at once."""

from __future__ import annotations

import dataclasses

BODY_BYTES = 1024
LARGE_KIB = 64


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    mode: str  # of loadgen: plain, tls, tls-new, h2, grpc-unary, grpc-stream
    connections: int
    unique: bool = False
    content: str = "small"  # of loadgen: small, large, post-large
    streams: int = 1  # in flight on each connection, over HTTP/2
    unit: str = "requests"

    @property
    def scheme(self) -> str:
        return "http" if self.mode == "plain" else "https"

    @property
    def multiplexed(self) -> bool:
        """Whether it is HTTP/2."""
        return self.mode in ("h2", "grpc-unary", "grpc-stream")


ROWS = [
    Row("plain-1", "plain HTTP, keep-alive, 1 connection", "plain", 1),
    Row("plain-32", "plain HTTP, keep-alive, 32 connections", "plain", 32),
    Row("tls-1", "HTTPS, keep-alive, 1 connection", "tls", 1),
    Row("tls-32", "HTTPS, keep-alive, 32 connections", "tls", 32),
    Row("tls-new-16", "HTTPS, a new connection per request, 16 at a time", "tls-new", 16),
    Row("plain-unique-32", "plain HTTP, keep-alive, 32 connections, no two requests alike", "plain", 32, True),
    Row("tls-unique-32", "HTTPS, keep-alive, 32 connections, no two requests alike", "tls", 32, True),
    Row("h2-1", "HTTP/2, 1 connection, 1 request in flight", "h2", 1),
    Row("h2-32", "HTTP/2, 4 connections, 8 requests in flight on each", "h2", 4, streams=8),
    Row("grpc-unary-32", "unary calls of gRPC, 1 connection, 32 in flight", "grpc-unary", 1, streams=32),
    Row("grpc-stream", "calls of gRPC answered with 1,000 messages, one after the other", "grpc-stream", 1, unit="messages"),
    Row("plain-8", "plain HTTP, keep-alive, 8 connections", "plain", 8),
    Row("plain-64k-8", "plain HTTP, keep-alive, 8 connections, 64 KiB answered", "plain", 8, content="large"),
    Row("plain-post-64k-8", "plain HTTP, keep-alive, 8 connections, 64 KiB sent", "plain", 8, content="post-large"),
    Row("tls-8", "HTTPS, keep-alive, 8 connections", "tls", 8),
    Row("tls-64k-8", "HTTPS, keep-alive, 8 connections, 64 KiB answered", "tls", 8, content="large"),
]
