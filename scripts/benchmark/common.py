"""Programs, times and ports: what every part of the benchmark uses."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = pathlib.Path(os.environ.get("PANTHEONFS", ROOT / "target/release/pantheonfs"))
BARE = PROGRAM.parent / "examples/bare"
HELPERS = pathlib.Path(__file__).resolve().parent
CLIENTS = ["pantheonfs", "sshfs", "rclone", "rsync", "sftp", "bare"]
# What a row says that did not end because of an error, not because of the limit.
FAILED = "failed"


def run(*args, **more):
    return subprocess.run([str(a) for a in args], check=True, stdout=subprocess.DEVNULL, **more)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, holds, seconds=30):
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            sys.exit(f"bench: timed out: {what}")
        time.sleep(0.01)


def listens(port, host="127.0.0.1"):
    with socket.socket() as s:
        return s.connect_ex((host, port)) == 0


def timed(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def shell(line, limit):
    """Whether the line ended within the limit. Its exit code does not count: `grep` that finds nothing has 1."""
    done = subprocess.run(["timeout", str(limit), "sh", "-c", line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode != 124


def measured(line, limit):
    """Seconds of a line that has to succeed; None at the limit, FAILED after an error, which is printed."""
    began = time.monotonic()
    done = subprocess.run(["timeout", str(limit), "sh", "-c", line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    if done.returncode == 124:
        return None
    if done.returncode != 0:
        print(f"# failed: {line}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", file=sys.stderr)
        return FAILED
    return seconds


def plus(first, *others):
    """The sum of the seconds of consecutive steps, of which one may have none."""
    for value in (first, *others):
        if not isinstance(value, float):
            return value
    return first + sum(others)


def quoted(path):
    return "'" + str(path).replace("'", "'\\''") + "'"


def drop_pages():
    """What the kernel keeps must not help: a cold row begins without it. Only root can do that."""
    if os.geteuid() == 0:
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
