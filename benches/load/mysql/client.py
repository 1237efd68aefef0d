"""A client of MySQL's protocol that does nothing it need not: it moves bytes, and counts them."""

from __future__ import annotations

import socket
import struct

PATIENCE_S = 120.0
# What a client must be able to: databases, protocol 4.1, transactions, its kind of proof, plugins.
CAPABILITIES = 0x0008_A209
HEAD_BYTES = 4
END_BYTES = 9  # of a result, with its head
READ_BYTES = 1 << 20


class WireFailed(OSError):
    """The server, or what stands before it, said something else than was expected."""


class Client:
    """One session as user bench, who needs no password, in database bench."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(8192)
        self.packet()
        body = struct.pack("<IIB23x", CAPABILITIES, 1 << 24, 45) + b"bench\0\0bench\0mysql_native_password\0"
        self.send(1, body)
        if self.packet()[:1] != b"\0":
            raise WireFailed("the login failed")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            self.send(0, b"\x01")
        except OSError:
            pass  # it has left first
        self.socket.close()

    def send(self, number: int, body: bytes) -> None:
        self.socket.sendall(struct.pack("<I", len(body) | number << 24) + body)

    def exactly(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            part = self.socket.recv(count - len(read))
            if not part:
                raise WireFailed("the connection ended")
            read += part
        return read

    def packet(self) -> bytes:
        (head,) = struct.unpack("<I", self.exactly(HEAD_BYTES))
        body = self.exactly(head & 0xFF_FFFF)
        if body[:1] == b"\xff":
            raise WireFailed(body.decode(errors="replace"))
        return body

    def read_all(self, sql: str) -> int:
        """Runs a query and reads its whole result; how many bytes that was behind the definitions.

        Nothing follows the end of a result, so the end of what was read tells. No row looks like one here.
        """
        self.send(0, b"\x03" + sql.encode())
        (columns,) = self.packet()
        for _ in range(columns + 1):
            self.packet()
        if len(self.buffer) < READ_BYTES and len(sql) > 64:
            self.buffer = bytearray(READ_BYTES)
        total, end = 0, b""
        view = memoryview(self.buffer)
        while not (end[:3] == b"\5\0\0" and end[4:5] == b"\xfe" and len(end) == END_BYTES):
            read = self.socket.recv_into(view)
            if read == 0:
                raise WireFailed(f"the connection ended: {end!r}")
            total += read
            end = (end + bytes(view[max(0, read - END_BYTES) : read]))[-END_BYTES:]
        return total
