"""The filter of system calls: every number of its tables, and live calls where they would work without it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.sandbox import seccomp
from tests.sandbox.probes import PRIVILEGED, PROBES, UNCOUNTED, USED
from tests.sandbox.users import USERS, as_user

ALLOWED = "allowed"
SOURCE = Path(__file__).with_name("probes.py").read_text()


def decided(program: bytes, arch: int, number: int, *arguments: int) -> str | int:
    """What the kernel does with a call: ``allowed``, or the error that it returns."""
    data = struct.pack("IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    operations = list(struct.iter_unpack("HBBI", program))
    at, loaded = 0, 0
    while True:
        code, yes, no, value = operations[at]
        at += 1
        if code == 0x06:
            assert value == 0x7FFF0000 or value >> 16 == 5
            return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF
        if code == 0x20:
            (loaded,) = struct.unpack_from("I", data, value)
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@pytest.mark.parametrize("counted", [True, False])
def test_every_call_is_decided_as_the_tables_say(machine: str, counted: bool) -> None:
    column, arch = seccomp.ARCHITECTURES[machine]
    program = seccomp.program(counted, machine)
    refused = {pair[column] for pair in seccomp.REFUSED.values()} - {None}
    uncounted = {pair[column] for pair in seccomp.UNCOUNTED.values()}
    checked = {pair[column] for pair in seccomp.CHECKED.values()}
    for number in set(range(1000)) - checked:
        expected: str | int = ALLOWED
        if number in refused:
            expected = errno.EPERM
        elif (number >= 424 and number not in seccomp.NEW.values()) or (number in uncounted and not counted):
            expected = errno.ENOSYS
        assert decided(program, arch, number) == expected, number
    clone, socket, pair_of, personality, ioctl, setsockopt = (pair[column] for pair in seccomp.CHECKED.values())
    for flag, expected in ((17, ALLOWED), (0x3D0F00, ALLOWED), (0x10000011, 1), (0x20011, 1), (1 << 31, ALLOWED)):
        assert decided(program, arch, clone, flag) == expected
    for family in range(64):
        for number in (socket, pair_of):
            expected = ALLOWED if family in (1, 2, 10) else errno.EAFNOSUPPORT
            assert decided(program, arch, number, family) == expected
    for protocol in (0, 6, 17, 132, 136, 262):  # among them SCTP, UDP-Lite, MPTCP
        expected = ALLOWED if protocol in (0, 6, 17) else errno.EPROTONOSUPPORT
        assert decided(program, arch, socket, 2, 1, protocol) == expected
    assert decided(program, arch, socket, (1 << 32) + 16) == errno.EAFNOSUPPORT  # the kernel reads the lower half
    assert [decided(program, arch, personality, value) for value in (0xFFFFFFFF, 0x40000)] == [ALLOWED, errno.EPERM]
    assert [decided(program, arch, ioctl, 0, request) for request in (0x5413, 0x5412)] == [ALLOWED, errno.EPERM]
    assert decided(program, arch, setsockopt, 3, 1, 7) == (ALLOWED if counted else errno.EPERM)


def test_other_architectures_find_no_calls() -> None:
    program = seccomp.program(True, "x86_64")
    for number in (1, 20, 165):
        assert decided(program, 0x40000003, number) == errno.ENOSYS  # 32 bit
        assert decided(program, 0xC000003E, 0x40000000 + number) == errno.ENOSYS  # x32
    with pytest.raises(R2VError, match="no table of system calls for riscv64, only for x86_64 and aarch64"):
        seccomp.program(True, "riscv64")


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_the_numbers_are_those_that_libseccomp_knows(machine: str) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    column, arch = seccomp.ARCHITECTURES[machine]
    tables = {**seccomp.REFUSED, **seccomp.UNCOUNTED, **seccomp.CHECKED}
    numbers = {name: pair[column] for name, pair in tables.items() if pair[column] is not None}
    for name, number in {**numbers, **seccomp.NEW}.items():
        known = library.seccomp_syscall_resolve_name_arch(arch, name.encode())
        assert known == number or (known == -1 and number > 448), name  # younger than the library


def outcomes(user: str, filtered: bytes | None, *namespaces: str) -> dict[str, str | int]:
    """What every probe comes to with all capabilities of a namespace, with or without a filter."""
    rights, python = as_user(user)
    command = ["bwrap", *namespaces, "--cap-add", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    command += ["--tmpfs", "/tmp", "--die-with-parent", "--new-session"]
    descriptor = os.memfd_create("filter")
    try:
        if filtered is not None:
            os.write(descriptor, filtered)
            os.lseek(descriptor, 0, os.SEEK_SET)
            command += ["--seccomp", str(descriptor)]
        done = subprocess.run(
            [*rights, *command, "--", python, "-S", "-B", "-c", SOURCE], pass_fds=[descriptor], capture_output=True,
            text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    return dict(json.loads(done.stdout))


ALL = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")


@pytest.mark.parametrize("user", USERS)
def test_what_would_work_is_refused_and_what_is_needed_works(user: str) -> None:
    own = (*ALL, "--unshare-user", "--uid", "0", "--gid", "0")
    free, held, watched = (outcomes(user, f, *own) for f in (None, seccomp.program(True), seccomp.program(False)))
    everything = [*PROBES, *USED, *UNCOUNTED]
    assert {name: free[name] for name in everything} == dict.fromkeys(everything, 0)
    for found in (held, watched):
        assert {found[name] for name in PROBES} == {"EPERM", "ENOSYS", "EAFNOSUPPORT"}
        assert {found[name] for name in USED} == {0}
    assert {held[name] for name in UNCOUNTED} == {0} and 0 not in {watched[name] for name in UNCOUNTED}
    if user == "root":  # what only the machine's own root can do
        free, held = (outcomes(user, f, *ALL) for f in (None, seccomp.program(True)))
        assert {free[name] for name in PRIVILEGED} == {0} and {held[name] for name in PRIVILEGED} == {"EPERM"}
