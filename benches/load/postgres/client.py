"""A client of PostgreSQL's protocol that does nothing it need not: it moves bytes, and counts them."""

from __future__ import annotations

import socket
import struct

PATIENCE_S = 120.0
READY = b"Z\x00\x00\x00\x05I"
READ_BYTES = 1 << 20


class WireFailed(OSError):
    """The server, or what stands before it, said something else than was expected."""


class Client:
    """One session as role postgres, in a database that asks for no password."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = struct.pack("!i", 196_608) + b"user\0postgres\0database\0postgres\0\0"
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.buffer = bytearray(8192)
        self.until_ready()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            self.socket.sendall(b"X\0\0\0\x04")
        except OSError:
            pass  # it has left first
        self.socket.close()

    def until_ready(self) -> int:
        """Reads up to ReadyForQuery; how many bytes that were.

        Nothing follows ReadyForQuery where nothing was asked, so the end of what was read tells.
        """
        total, end, failed = 0, b"", b""
        view = memoryview(self.buffer)
        while True:
            read = self.socket.recv_into(view)
            if read == 0:
                raise WireFailed(f"the connection ended: {failed or end!r}")
            total += read
            part = bytes(view[max(0, read - len(READY)) : read])
            if read < 4096 and b"SERROR" in bytes(view[:read]):
                failed = bytes(view[:read])
            end = (end + part)[-len(READY) :]
            if end == READY:
                if failed:
                    raise WireFailed(failed.decode(errors="replace"))
                return total

    def read_all(self, sql: str) -> int:
        """Runs a statement and reads its whole answer; how many bytes that was."""
        if len(self.buffer) < READ_BYTES and len(sql) > 64:
            self.buffer = bytearray(READ_BYTES)
        self.query(sql)
        return self.until_ready()

    def query(self, sql: str) -> None:
        text = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)

    def copy_in(self, sql: str, piece: bytes, size: int) -> int:
        """Sends ``size`` bytes as pieces of COPY data; how many bytes that was."""
        self.query(sql)
        answer = self.socket.recv(64)
        if not answer.startswith(b"G"):
            raise WireFailed(f"no CopyInResponse: {answer!r}")
        message = b"d" + struct.pack("!i", len(piece) + 4) + piece
        run = message * 8
        count = size // len(piece) // 8
        for _ in range(count):
            self.socket.sendall(run)
        self.socket.sendall(b"c\0\0\0\x04")
        self.until_ready()
        return count * len(run)
