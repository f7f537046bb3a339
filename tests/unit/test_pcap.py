# SPDX-License-Identifier: Apache-2.0
"""Capture files, against the tests' own reader and writer. What is no capture file: test_cli_replay.py."""

from pathlib import Path

import pytest

from evener.errors import EvenerError
from evener.pcap import Reader, Record, Writer
from tests.support.pcap import read_pcap, write_pcap

FRAMES = [
    (0, bytes(14)),
    (1_700_000_000_123_456_789, bytes(range(60))),
    (1_700_000_000_999_999_999, b"\xff" * 1514),
    ((1 << 32) * 10**9 - 1, b""),
]


@pytest.mark.parametrize("nanoseconds", [True, False])
def test_what_is_written_is_read(tmp_path: Path, nanoseconds: bool) -> None:
    path, unit = tmp_path / "a.pcap", 1 if nanoseconds else 1000
    with Writer(path, nanoseconds) as file:
        for time_ns, frame in FRAMES:
            file.write(Record.whole(time_ns, frame))
    expected = [(time_ns // unit * unit, frame) for time_ns, frame in FRAMES]
    assert read_pcap(path) == expected
    reader = Reader(path)
    assert [(one.time_ns, one.frame) for one in reader] == expected
    assert {one.wire_bytes == len(one.frame) for one in reader} == {True}
    assert (reader.nanoseconds, reader.cut) == (nanoseconds, False)


def test_what_others_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    write_pcap(path, FRAMES)
    assert [(one.time_ns, one.frame) for one in Reader(path)] == FRAMES


def test_frames_that_were_cut_off_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Writer(path) as file:
        file.write(Record(7, b"abc", 1500))
    assert list(Reader(path)) == [Record(7, b"abc", 1500)]


def test_what_was_written_can_be_looked_at_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Writer(path) as file:
        file.write(Record.whole(7, b"abc"))
        file.flush()
        assert list(Reader(path)) == [Record.whole(7, b"abc")]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EvenerError, match="cannot be written"):
        Writer(tmp_path / "no" / "a.pcap")
