"""Whoever logs waits for nobody: what is not read is kept up to a bound, then lost, counted and said."""

from __future__ import annotations

import os
import select
import threading

import pytest

from trikv import stderr
from trikv.stderr import LineWriter


class Reader:
    """Takes lines while it is `open`; a write waits until then."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open = threading.Event()
        self.broken = False

    def write(self, data: bytes) -> None:
        self.open.wait()
        if self.broken:
            raise BrokenPipeError
        self.lines += data.decode().splitlines()


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def writer(reader: Reader) -> LineWriter:
    return LineWriter(lambda count: f"lost {count}", reader.write)


def test_lines_come_out_whole_and_in_order(reader: Reader, writer: LineWriter) -> None:
    reader.open.set()
    expected = [f"line {index}" for index in range(1000)]
    for line in expected:
        writer.put(line)
    assert writer.flush()
    assert reader.lines == expected
    assert writer.lost == 0


def test_what_nobody_reads_is_bounded_counted_and_said(reader: Reader, writer: LineWriter) -> None:
    line = "x" * 999
    for _ in range(3000):
        writer.put(line)  # returns, though nobody reads
    kept = stderr.MAX_QUEUED_BYTES // 1000
    assert writer.lost == 3000 - kept
    assert not writer.flush(timeout_s=0)
    reader.open.set()
    assert writer.flush()
    assert reader.lines == [line] * kept + [f"lost {3000 - kept}"]
    writer.put("more")
    assert writer.flush()
    assert reader.lines[-1] == "more"


def test_what_was_lost_is_said_before_what_comes_next(reader: Reader, writer: LineWriter) -> None:
    written = threading.Event()

    def take_one(data: bytes) -> None:
        reader.open.wait()
        reader.open.clear()
        reader.lines += data.decode().splitlines()
        written.set()

    writer._write = take_one
    half = "x" * (stderr.MAX_QUEUED_BYTES // 2 - 1)
    for line in (half, half, "lost", "lost"):
        writer.put(line)
    reader.open.set()
    written.wait()
    while writer._queued_bytes > stderr.MAX_QUEUED_BYTES // 2:
        pass
    writer.put("next")
    writer._write = reader.write
    for _ in range(3):
        reader.open.set()
        writer.flush(0.05)
    assert reader.lines == [half, half, "lost 2", "next"]


def test_lines_for_a_reader_that_has_left_are_lost_and_nothing_else(
    reader: Reader, writer: LineWriter
) -> None:
    reader.broken = True
    reader.open.set()
    writer.put("a")
    assert writer.flush()
    reader.broken = False
    writer.put("b")
    assert writer.flush()
    assert (reader.lines, writer.lost) == (["lost 1", "b"], 1)


def test_a_line_that_is_no_utf8_is_written_all_the_same(reader: Reader, writer: LineWriter) -> None:
    reader.open.set()
    writer.put("a\ud800b")
    assert writer.flush()
    assert reader.lines == ["a\\ud800b"]


def test_a_full_descriptor_that_does_not_block_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = bytearray()
    full = iter([True, False, True, False, False])

    def write(descriptor: int, data: memoryview) -> int:
        if next(full):
            raise BlockingIOError
        taken.extend(data[:2])
        return min(2, len(data))

    waits: list[float] = []
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(select, "select", lambda *args: waits.append(args[3]))
    stderr._write_all(b"abcde")
    assert (bytes(taken), waits) == (b"abcde", [stderr.RETRY_S] * 2)
