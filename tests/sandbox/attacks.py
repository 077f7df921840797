"""Programs that try to get out of the box or to take the machine down, and what each must not manage.

Each prints ``BROKE`` where it got what it wanted. ``python tests/sandbox/attacks.py CANARY PORT`` runs all of them with
the rights of whoever calls it and prints one JSON line an attack; the host is looked at by the test that calls it.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
from dataclasses import replace

from r2v_core.sandbox import Limits, run
from r2v_core.sandbox.isolation import interpreter
from r2v_core.sandbox.limits import Stopped

LIMITS = Limits(wall_s=3.0, cpu_s=2, memory_mb=96, processes=16, disk_mb=8, output_kb=64)
STOPPED: dict[str, Stopped | None] = {
    "sleep for ever": "time",
    "ignore signals": "time",
    "memory bomb": "memory",
    "memory bomb of many processes": "memory",
    "memory in inodes": "memory",
    "memory in local sockets of the usual size": "memory",
    "memory in shared pages that nobody maps": "memory",
    "flood of output": "output",
    "flood of errors": "output",
    "crash": None,
    "leave a daemon": None,
}
"""The limit that ends an attack, where it is always the same one."""
PATIENT = replace(LIMITS, wall_s=30.0, cpu_s=20)
"""For attacks that are on their way to another limit than time: on a busy machine that takes longer than 3 s."""

KEY = "key-canary-77"
"""A secret in the keyrings of whoever makes the boxes."""
_TRY = """
import os, sys, socket, subprocess, ctypes, signal, time, threading, glob, mmap, struct
def broke(what=''): print('BROKE', what); sys.stdout.flush()
def attempt(f):
    try:
        found = f()
    except BaseException as error:
        print('refused:', type(error).__name__, error)
    else:
        if found is not None and found is not False: broke(repr(found)[:200])
libc = ctypes.CDLL(None, use_errno=True)
KEYCTL, ADD_KEY = (250, 248) if os.uname().machine == 'x86_64' else (219, 217)
def key(keyring):  # what a keyring holds under the canary's name
    found = libc.syscall(KEYCTL, 10, keyring, b'user', b'r2v-canary', 0)
    content = ctypes.create_string_buffer(64)
    return content.value if found > 0 and libc.syscall(KEYCTL, 11, found, content, 64, 0) > 0 else None
def hold(more, mb=250):  # keep taking what `more` gives, in bytes, until all processes have far more than is allowed
    held = 0
    def total(): return sum(struct.unpack('512Q', held_by))
    try:
        while total() < mb << 20:
            held += more()
            struct.pack_into('Q', held_by, 8 * (os.getpid() % 512), held)
    except BaseException as error:
        print('held', held >> 20, type(error).__name__, error); sys.stdout.flush()
    time.sleep(0.5)  # whoever looks now and then has looked
    if total() >= mb << 20: broke(f'{total() >> 20} MB')
held_by = mmap.mmap(-1, 4096)
MB = b'1' * (1 << 20)
"""

ATTACKS: dict[str, str] = {
    # network
    "connect to a server on this machine": "attempt(lambda: socket.create_connection(('127.0.0.1', PORT), 1))",
    "connect to another machine": "attempt(lambda: socket.create_connection(('192.0.2.1', 80), 1))",
    "resolve a name": "attempt(lambda: socket.getaddrinfo('example.org', 80))",
    "send a datagram": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    "attempt(lambda: s.sendto(b'x', ('192.0.2.1', 53)))",
    "raw socket": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
    "packet socket": "attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))",
    "abstract socket of the host": "s = socket.socket(socket.AF_UNIX); "
    "attempt(lambda: s.connect('\\0r2v-canary') or 1)",
    "see network interfaces": "attempt(lambda: [n for _, n in socket.if_nameindex() if n != 'lo'] or None)",
    # host files
    "read a file of the host": "attempt(lambda: open('CANARY').read())",
    "read it through the root of process 1": "attempt(lambda: open('/proc/1/root' + 'CANARY').read())",
    "read it through its working directory": "attempt(lambda: open('/proc/1/cwd/' + '../' * 9 + 'CANARY').read())",
    "read it through a symbolic link": "os.symlink('CANARY', 'link'); attempt(lambda: open('link').read())",
    "overwrite it through a symbolic link": "os.symlink('CANARY', 'link'); "
    "attempt(lambda: open('link', 'w').write('x'))",
    "read the password file": "attempt(lambda: open('/etc/passwd').read())",
    "read the shadow file": "attempt(lambda: open('/etc/shadow').read())",
    "list home directories": "attempt(lambda: [p for p in glob.glob('/home/*') + glob.glob('/root/.*') "
    "if not sys.prefix.startswith(p)] or None)",
    "write into /usr": "attempt(lambda: open('/usr/canary', 'w'))",
    "write into the interpreter": "attempt(lambda: open(os.__file__, 'a'))",
    "write into the root directory": "attempt(lambda: open('/canary', 'w'))",
    "write into /etc": "attempt(lambda: open('/etc/canary', 'w'))",
    "make /usr writable": "attempt(lambda: os.chmod('/usr', 0o777) or 1)",
    "remount": "attempt(lambda: None if libc.mount(b'none', b'/usr', None, 4096 | 32, None) else 1)",
    "mount a file system": "attempt(lambda: None if libc.mount(b'proc', b'/tmp', b'proc', 0, None) else 1)",
    "change root and climb out": "attempt(lambda: os.chroot('/tmp') or 1)",
    "open a disk": "attempt(lambda: [open(p, 'rb') for p in glob.glob('/dev/[svn][dv]*')] or None)",
    "make a device": "attempt(lambda: os.mknod('disk', 0o60666, os.makedev(8, 0)) or 1)",
    "open kernel memory": "attempt(lambda: open('/dev/mem', 'rb'))",
    "read the kernel's memory image": "attempt(lambda: open('/proc/kcore', 'rb').read(8))",
    "hard link to a file of the system": "attempt(lambda: os.link('/usr/bin/env', '/box/env') or 1)",
    # kernel switches
    "write a kernel setting": "attempt(lambda: open('/proc/sys/kernel/core_pattern', 'w').write('|/box/x'))",
    "reboot by sysrq": "attempt(lambda: open('/proc/sysrq-trigger', 'w').write('h'))",
    "set the host name": "attempt(lambda: socket.sethostname('broke') or 1)",
    "set the clock": "attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, 0) or 1)",
    "become root": "attempt(lambda: os.setuid(0) or 1)",
    "a setuid program": "attempt(lambda: 1 if b'uid=0' in "
    "subprocess.run(['su', '-c', 'id'], capture_output=True).stdout else None)",
    "a user namespace of its own": "attempt(lambda: None if libc.unshare(0x10000000) else "
    "(open('/proc/self/setgroups', 'w').write('deny'), libc.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0)[1] or None)",
    "raise its own limits": "import resource as r; attempt(lambda: r.setrlimit(r.RLIMIT_NPROC, (9999, 9999)) or 1)",
    "load a kernel module": "attempt(lambda: None if libc.syscall(313, 0, b'', 0) else 1)",
    # other processes
    "see processes of the host": "attempt(lambda: [p for p in os.listdir('/proc') if p.isdigit() "
    "and int(p) > 50] or None)",
    "kill everything": "attempt(lambda: os.kill(-1, signal.SIGKILL))",
    "signal a process of the host": "attempt(lambda: os.kill(HOST, signal.SIGKILL) or 1)",
    "trace a process of the host": "attempt(lambda: None if libc.ptrace(16, HOST, 0, 0) else 1)",
    "shared memory of the host": "attempt(lambda: [p for p in glob.glob('/dev/shm/*')] or None)",
    "push keys into the terminal": "import fcntl, termios; attempt(lambda: fcntl.ioctl(0, termios.TIOCSTI, b'x') or 1)",
    # secrets
    "read keys from the environment": "attempt(lambda: [k for k, v in os.environ.items() if 'canary' in v] or None)",
    "read keys from other processes' environment": "attempt(lambda: [p for p in glob.glob('/proc/[0-9]*/environ') "
    "if b'canary' in open(p, 'rb').read()] or None)",
    "read command lines": "attempt(lambda: [p for p in glob.glob('/proc/[0-9]*/cmdline') "
    "if b'attacks.py' in open(p, 'rb').read()] or None)",
    "read inherited descriptors": "attempt(lambda: [f for f in os.listdir('/proc/self/fd') if int(f) > 2 "
    "and 'canary' in os.readlink('/proc/self/fd/' + f)] or None)",
    "read hidden tests": "attempt(lambda: [p for d, _, names in os.walk('/') if not d.startswith(('/proc', '/usr')) "
    "for p in names if 'hidden' in p] or None)",
    "read the caller's session keyring": "attempt(lambda: key(-3))",
    "read the caller's user keyring": "attempt(lambda: key(-4) or key(-5))",
    "list keys": "attempt(lambda: open('/proc/keys').read() or None)",
    "leave a key": "attempt(lambda: [1 for k in (-3, -4, -5) "
    "if libc.syscall(ADD_KEY, b'user', b'r2v-left', b'x', 1, k) > 0] or None)",
    # the kernel's surface
    "a process in namespaces of its own": "attempt(lambda: [1 for flag in (0x10000000, 0x20000, 0x40000000) "
    "if libc.unshare(flag) == 0] or None)",
    "a socket of another family": "for f in sorted({*range(64)} - {1, 2, 10}):\n"
    "    for kind in range(1, 6): attempt(lambda: socket.socket(f, kind))",
    "an io_uring": "attempt(lambda: 1 if libc.syscall(425, 4, ctypes.create_string_buffer(120)) >= 0 else None)",
    "calls of 32-bit programs": "attempt(lambda: 1 if libc.syscall(0x40000000 + 39) > 0 else None)",
    # memory that is nobody's page
    "memory in memfds": "files = []\ndef more():\n    files.append(os.memfd_create('x'))\n"
    "    for _ in range(7): os.write(files[-1], MB)\n    return 7 << 20\nhold(more)",
    "memory in memfds on their way": "import array; a, b = socket.socketpair()\ndef more():\n"
    "    f = os.memfd_create('x'); [os.write(f, MB) for _ in range(7)]\n"
    "    a.sendmsg([b'x'], [(1, 1, array.array('i', [f]))]); os.close(f)\n    return 7 << 20\nhold(more)",
    "memory in System V's shared memory": "libc.shmat.restype = ctypes.c_void_p\ndef more():\n"
    "    i = libc.shmget(0, 4 << 20, 0o1600)\n    if i < 0: raise OSError('no')\n"
    "    at = libc.shmat(i, None, 0); ctypes.memset(at, 1, 4 << 20); libc.shmdt(ctypes.c_void_p(at))\n"
    "    return 4 << 20\nhold(more)",
    "memory in System V's messages": "text = ctypes.create_string_buffer(b'\\1' + b'x' * 8100)\ndef more():\n"
    "    q = libc.msgget(0, 0o1600)\n    if q < 0: raise OSError('no')\n"
    "    return sum(8000 for _ in range(2) if libc.msgsnd(q, text, 8000, 0o4000) == 0) or 1 << 30\nhold(more)",
    "memory in nested file systems": "ok = libc.unshare(0x10020000)\ndef more():\n"
    "    if libc.mount(b't', b'/tmp', b'tmpfs', 0, b'size=1g'): raise OSError('no')\n"
    "    [open(f'/tmp/{i}', 'wb').write(MB) for i in range(32)]\n    return 32 << 20\nhold(more)",
    "memory in local sockets": "pairs = []\ndef more():\n    pairs.append(socket.socketpair()); a = pairs[-1][0]\n"
    "    a.setsockopt(1, 7, 1 << 22); a.setblocking(False); n = 0\n    try:\n"
    "        while True: n += a.send(MB)\n    except BlockingIOError: return n\nhold(more)",
    "memory in local sockets of the usual size": "pairs = []\ndef more():\n    pairs.append(socket.socketpair())\n"
    "    n = 0\n    for a in pairs[-1]:\n        a.setblocking(False)\n        try:\n"
    "            while True: n += a.send(MB)\n        except BlockingIOError: pass\n    return n\n"
    "[os.fork() for _ in range(3)]; hold(more); time.sleep(60)",
    "memory in TCP's queues": "server = socket.create_server(('127.0.0.1', 0)); pairs = []\ndef more():\n"
    "    a = socket.create_connection(server.getsockname()); pairs.append((a, server.accept()))\n"
    "    a.setblocking(False); n = 0\n    try:\n        while True: n += a.send(MB)\n"
    "    except BlockingIOError: return n\n[os.fork() for _ in range(3)]; hold(more); time.sleep(60)",
    "memory in inodes": "n = 0\ndef more():\n    global n\n    n += 1; os.symlink('x' * 100, f'/tmp/{n}')\n"
    "    return 1024\nhold(more)",
    "memory in shared pages that nobody maps": "kept = []\ndef more():\n"
    "    kept.append(mmap.mmap(-1, 4 << 20))\n    for _ in range(4): kept[-1].write(MB)\n"
    "    kept[-1].madvise(mmap.MADV_DONTNEED)\n    return 4 << 20\nhold(more)",
    "memory that can't be looked at": "libc.prctl(4, 0, 0, 0, 0); kept = []\ndef more():\n"
    "    kept.append(mmap.mmap(-1, 4 << 20))\n    for _ in range(4): kept[-1].write(MB)\n"
    "    kept[-1].madvise(mmap.MADV_DONTNEED)\n    return 4 << 20\nhold(more)",
    "memory in pipes": "ends = []\ndef more():\n    r, w = os.pipe(); ends.extend((r, w)); os.set_blocking(w, False)\n"
    "    import fcntl\n    try: fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n"
    "    n = 0\n    try:\n        while True: n += os.write(w, MB)\n    except BlockingIOError: return n\n"
    "[os.fork() for _ in range(3)]; hold(more)",
    "memory in datagrams": "kept = []\ndef more():\n    a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "    a.bind(('127.0.0.1', 0)); a.setblocking(False); kept.append(a)\n    try:\n"
    "        for _ in range(16): a.sendto(MB[:60000], a.getsockname())\n    except OSError: pass\n"
    "    waiting = struct.unpack('9I', a.getsockopt(1, 55, 36))[0]  # SO_MEMINFO: what the kernel has kept\n"
    "    if not waiting: raise OSError('no more is kept')\n    return waiting\n"
    "[os.fork() for _ in range(3)]; hold(more)",
    "memory in deleted files": "files = []\ndef more():\n    files.append(open('big', 'wb')); os.unlink('big')\n"
    "    files[-1].write(MB); files[-1].flush()\n    return 1 << 20\nhold(more)",
    "memory in pages of many processes": "shared = mmap.mmap(-1, 60 << 20)\n"
    "for _ in range(60): shared.write(MB)\n[os.fork() for _ in range(2)]; own = bytearray(MB * 40); "
    "time.sleep(60); broke()",
    # taking the machine down
    "fork bomb": "while True: os.fork()",
    "fork bomb that gives up its parent": "while True:\n    if os.fork() == 0: os.setsid()",
    "thread bomb": "n = 0\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start(); n += 1\n"
    "if n > 100: broke(n)",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(b'1' * (1 << 20)))\nbroke()",
    "memory bomb of many processes": "[os.fork() for _ in range(3)]; x = b'1' * (60 << 20); time.sleep(60); broke()",
    "disk bomb": "f = open('big', 'wb')\nfor _ in range(64): f.write(b'1' * (1 << 20)); f.flush()\nbroke()",
    "disk bomb of many files": "for i in range(64): open(f'big{i}', 'wb').write(b'1' * (1 << 20))\nbroke()",
    "disk bomb in /tmp": "for i in range(64): open(f'/tmp/big{i}', 'wb').write(b'1' * (1 << 20))\nbroke()",
    "disk bomb in /dev": "for i in range(64): open(f'/dev/shm/big{i}', 'wb').write(b'1' * (1 << 20))\nbroke()",
    "endless loop": "while True: pass",
    "sleep for ever": "time.sleep(1e6)",
    "ignore signals": "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 13, 15)]; time.sleep(1e6)",
    "flood of output": "while True: sys.stdout.write('x' * 65536)",
    "flood of errors": "while True: sys.stderr.write('x' * 65536)",
    "leave a daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1e6)\nos._exit(0)",
    "daemon that holds the output open": "if os.fork() == 0: time.sleep(1e6)\nos._exit(0)",
    "crash": "ctypes.string_at(0)",
    "bytes that are no text": "os.write(1, b'\\xff\\xfe\\x00' * 100)",
}


def _keep_a_key() -> None:
    """A secret in keyrings of this process: a session's of its own, and its user's."""
    libc = ctypes.CDLL(None, use_errno=True)
    keyctl, add_key = (250, 248) if platform.machine() == "x86_64" else (219, 217)
    libc.syscall(keyctl, 1, None)
    secret = KEY.encode()
    assert all(libc.syscall(add_key, b"user", b"r2v-canary", secret, len(secret), ring) > 0 for ring in (-3, -4))


def main() -> None:
    """Run every attack."""
    canary, port = sys.argv[1:]
    _keep_a_key()
    for name, attack in ATTACKS.items():
        source = _TRY + attack.replace("CANARY", canary).replace("PORT", port).replace("HOST", str(os.getpid()))
        limits = PATIENT if STOPPED.get(name) in ("memory", "output") else LIMITS
        ended = run([interpreter(), "attack.py"], files={"attack.py": source}, limits=limits)
        print(
            json.dumps(
                {
                    "name": name,
                    "out": ended.stdout[:2000],
                    "err": ended.stderr[-500:],
                    "exit": ended.exit_code,
                    "stopped": ended.stopped,
                    "wall_s": ended.wall_s,
                    "limit_s": limits.wall_s,
                    "size": len(ended.stdout) + len(ended.stderr),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
