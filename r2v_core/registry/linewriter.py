"""Copying lines between files without parsing them."""

from __future__ import annotations

import os
from pathlib import Path

from r2v_core.errors import R2VError

CHANGED = "the file changed after it was registered: r2v registry doctor"
_BLOCK = 1 << 20


class LineWriter:
    """A file that is filled from pieces of other files in large, aligned writes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.buffer = bytearray(_BLOCK)
        self.view = memoryview(self.buffer)
        self.fill = 0
        self.written = 0

    def reserve(self, size: int) -> None:
        """Claim disk space: quicker, and a full disk is noticed at once."""
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.fd, 0, size)

    def copy(self, fd: int, start: int, end: int, path: Path) -> None:
        """Append whole lines, bytes [start, end) of the open file ``fd`` without their last newline, and that newline.

        Raises:
            R2VError: if these are not whole lines any more.
        """
        first, last = -1, -1
        position = start
        while position <= end:
            space = self.view[self.fill : self.fill + end + 1 - position]
            n = os.preadv(fd, [space], position)
            if n == 0:
                break
            first = space[0] if first < 0 else first
            last = space[n - 1]
            self._advance(n)
            position += n
        if position == end and last >= 0:  # the file's last line has no newline
            self.put(b"\n")
            last = 0x0A
        if last != 0x0A or first not in b"{ \t\r":
            raise R2VError(f"{path}: not the lines that were registered; {CHANGED}")

    def put(self, data: bytes) -> None:
        """Append bytes."""
        while data:
            n = min(len(data), _BLOCK - self.fill)
            self.buffer[self.fill : self.fill + n] = data[:n]
            self._advance(n)
            data = data[n:]

    def _advance(self, n: int) -> None:
        self.fill += n
        if self.fill == _BLOCK:
            self._flush()

    def _flush(self) -> None:
        done = 0
        while done < self.fill:
            done += os.write(self.fd, self.view[done : self.fill])
        self.written += self.fill
        self.fill = 0

    def finish(self) -> None:
        """Write the rest and give back space that was claimed but not needed."""
        self._flush()
        os.ftruncate(self.fd, self.written)
