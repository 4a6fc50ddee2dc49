"""Damaged files by the thousand, each read in a process that may die of it."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from densegen.errors import DensegenError

SLOW_S = 2.0
"""Of the processor's time, which other work on the machine does not lengthen; more only for a file of megabytes."""

HANGS_S = 20.0
MOST_MB = 500

AWKWARD = (
    b"nan", b".inf", b"-1", b"1e308", b"1e999", b"9" * 40, b"1:2:3", b"null", b"[]", b"{}", b"!!int 3", b"*a",
    b"&a [1]", b"? ", b"\x00", b"\xff", "\u202e".encode(), b"'", b'"', b"- ", b"\n", b"yes", b"0x10", b"",
)  # fmt: skip


@dataclass
class Outcome:
    """What became of the cases: numbers, and the cases that broke a promise, each with what happened."""

    accepted: int = 0
    refused: int = 0
    broken: list[tuple[int, str]] = field(default_factory=list)


def mutate(seed_file: bytes, case: int) -> bytes:
    """A damaged copy: a function of the file and of the case's number alone."""
    rng = np.random.default_rng([len(seed_file), case])
    data = bytearray(seed_file)
    for _ in range(int(rng.choice([1, 1, 2, 4, 8]))):
        if not data:
            break
        at = int(rng.integers(len(data)) if rng.random() < 0.5 else rng.integers(min(len(data), 4096)))
        size = int(rng.choice([1, 2, 4, 8, 33, 400]))
        kind = rng.integers(8)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + size] = bytes(min(size, len(data) - at))
        elif kind == 2:
            data[at : at + size] = b""
        elif kind == 3:
            data[at:at] = data[at : at + size]
        elif kind == 4:
            data[at : at + size] = rng.bytes(min(size, len(data) - at))
        elif kind == 5:
            number = int(rng.choice([0, 1, 2, 0x7F, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]))
            data[at : at + 4] = struct.pack("<I", number)
        elif kind == 6:
            data[at : at + 8] = struct.pack("<Q", int(rng.choice([0, 2**33, 2**40, 2**63 - 1, 2**63])))
        elif rng.random() < 0.2:
            del data[at:]
        else:
            other = int(rng.integers(len(data)))
            data[at : at + size] = data[other : other + size]
    return bytes(data)


def mutate_text(seed_file: bytes, case: int) -> bytes:
    """The same for text: words are exchanged, repeated, left out, and replaced by awkward ones."""
    rng = np.random.default_rng([len(seed_file), case, 1])
    if rng.random() < 0.3:
        return mutate(seed_file, case)
    words = seed_file.split(b" ")
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        at = int(rng.integers(len(words)))
        kind = rng.integers(4)
        if kind == 0:
            words[at] = AWKWARD[int(rng.integers(len(AWKWARD)))]
        elif kind == 1:
            words[at] = words[int(rng.integers(len(words)))]
        elif kind == 2:
            words[at : at + 1] = []
        else:
            words[at:at] = words[at : at + int(rng.integers(1, 20))]
        words = words or [b""]
    return b" ".join(words)


def run_cases(
    read: Callable[[Path], object], seed_file: bytes, path: Path, cases: range,
    change: Callable[[bytes, int], bytes] = mutate,
) -> Outcome:  # fmt: skip
    """Read each damaged file in a child process; one that dies, hangs or swells is replaced by another."""
    outcome, number = Outcome(), cases.start
    while number < cases.stop:
        pipe, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(pipe)
            _read_all(read, seed_file, path, range(number, cases.stop), change, into)
        os.close(into)
        number = _watch(child, pipe, number, cases.stop, outcome)
        os.close(pipe)
    return outcome


def _read_all(
    read: Callable[[Path], object], seed_file: bytes, path: Path, cases: range,
    change: Callable[[bytes, int], bytes], into: int,
) -> None:  # fmt: skip
    faulthandler.disable()  # a case that dies is counted, not told
    gc.freeze()  # else a collection copies all that the parent has, which takes seconds and counts as a case's own
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    before = _rss_mb()
    for number in cases:
        data = change(seed_file, number)
        path.write_bytes(data)
        start = time.process_time()
        try:
            read(path)
            said = "accepted"
        except (DensegenError, OSError):
            said = "refused"
        except BaseException as error:
            said = f"escaped: {type(error).__name__}: {str(error)[:200]}"
        if (took := time.process_time() - start) > SLOW_S and len(data) < 1 << 20:
            said = f"slow: {took:.1f} s, {said}"
        if (grown := _rss_mb() - before) > MOST_MB:
            said = f"swollen: {grown} MB, {said}"
        os.write(into, f"{said}\n".encode("utf-8", "replace"))
        if said.startswith("swollen"):
            break
    os._exit(0)


def _watch(child: int, pipe: int, number: int, stop: int, outcome: Outcome) -> int:
    """Count what the child says until it ends or hangs; the number of the next case."""
    text = b""
    while number < stop:
        if not select.select([pipe], [], [], HANGS_S)[0]:
            os.kill(child, signal.SIGKILL)
            outcome.broken.append((number, "hung"))
            number += 1
            break
        part = os.read(pipe, 65536)
        if not part:
            break
        text += part
        *lines, text = text.split(b"\n")
        for line in lines:
            said = line.decode("utf-8", "replace")
            if said == "accepted":
                outcome.accepted += 1
            elif said == "refused":
                outcome.refused += 1
            else:
                outcome.broken.append((number, said))
            number += 1
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
        outcome.broken.append((number, f"died of signal {os.WTERMSIG(status)}"))
        number += 1
    return number


def _rss_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
