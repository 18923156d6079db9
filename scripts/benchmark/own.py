"""Rows with trees of their own: many readers, a large file, growth, memory over time, a minute idle."""

import json
import random
import shutil
import subprocess
import sys
import time

from benchmark.common import FAILED, HELPERS, drop_pages, measured, plus, quoted, shell
from benchmark.rows import GROWTH, GROWTH_BASE, ROUNDS
from benchmark.trees import OLD_SECS, flat, set_times

READERS = 16
# Names for the thread that asks for attributes, each in a directory of its own.
LOOKS = 2_000
PATCH = ["patch-large", "patch-large-sent"]
SETTLE_SECS = 5


def sizes(quick):
    """What is smaller in a quick run."""
    if quick:
        return {"reader_bytes": 1_000_000, "patch_bytes": 8_000_000, "growth": 10, "rounds": 10, "idle_secs": 10}
    return {"reader_bytes": 16_000_000, "patch_bytes": 64_000_000, "growth": 100, "rounds": 100, "idle_secs": 60}


def made(bench, name, make):
    """A tree of these rows, made when it is needed first."""
    at = bench.work / "trees" / "own" / name
    if not at.exists():
        at.mkdir(parents=True)
        make(at)
        set_times(at, time.time() - OLD_SECS)
    return at


def readers(bench, rows):
    def make(at):
        for part in ("large", "small"):
            (at / part).mkdir()
        for n in range(READERS):
            (at / "large" / f"r{n}.bin").write_bytes(random.Random(n).randbytes(sizes(bench.quick)["reader_bytes"]))
        for n in range(LOOKS):
            (at / "small" / f"d{n}").mkdir()
            (at / "small" / f"d{n}" / "f.php").write_text("<?php\n")
    path = made(bench, "readers", make)
    with bench.mounted(path) as mount:
        drop_pages()
        command = ["timeout", str(bench.limit), sys.executable, HELPERS / "readers.py", mount.dir / "large", mount.dir / "small", LOOKS]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode == 124:
        return dict.fromkeys(["read-16", "read-16-stat"]), {}
    if done.returncode != 0:
        print(f"# failed: read-16: {done.stderr}", file=sys.stderr)
        return dict.fromkeys(["read-16", "read-16-stat"], FAILED), {}
    told = json.loads(done.stdout)
    return {"read-16": told["seconds"], "read-16-stat": told["stat"]}, {}


PATCHING = "import os, sys; f = os.open(sys.argv[1], os.O_RDWR); os.pwrite(f, b'\\x01', int(sys.argv[2])); os.close(f)"


def patched(bench):
    """The tree with the file, where the byte is, and whether the server has it changed."""
    size = sizes(bench.quick)["patch_bytes"]
    path = made(bench, "patch", lambda at: None)
    file = path / "large.bin"
    # The last client may have changed it.
    content = bytearray(random.Random(3).randbytes(size))
    content[size // 2] = 0
    file.write_bytes(content)
    set_times(path, time.time() - OLD_SECS)

    def arrived():
        with file.open("rb") as now:
            now.seek(size // 2)
            return now.read(1) == b"\x01" and file.stat().st_size == size
    return path, size // 2, arrived


def patch_line(file, at):
    return f"{quoted(sys.executable)} -c {quoted(PATCHING)} {quoted(file)} {at}"


def patch(bench, rows):
    path, at, arrived = patched(bench)
    with bench.mounted(path) as mount:
        drop_pages()
        values = {"patch-large": measured(patch_line(mount.dir / "large.bin", at), bench.limit)}
        if "patch-large-sent" in rows:
            values["patch-large-sent"] = plus(values["patch-large"], mount.sent(arrived, bench.limit))
    if not arrived():
        print("# failed: patch-large: the server does not have the byte", file=sys.stderr)
        return dict.fromkeys(PATCH, FAILED), {}
    return values, {}


def growth(bench, rows):
    values = {}
    for times in GROWTH:
        names = {kind: f"growth-{kind}-{times}" for kind in ("find", "grep", "memory")}
        if times > sizes(bench.quick)["growth"] or not any(name in rows for name in names.values()):
            continue
        files = GROWTH_BASE * times
        path = made(bench, f"growth-{files}", lambda at: flat(at, files))
        with bench.mounted(path) as mount:
            drop_pages()
            values[names["find"]] = measured(f"find {quoted(mount.dir)} -type f -printf '%s %p\\n'", bench.limit)
            drop_pages()
            # grep that finds nothing has the exit code 1.
            values[names["grep"]] = measured(f"grep -rc no-such-word-anywhere {quoted(mount.dir)} || [ $? -eq 1 ]", bench.limit)
            if names["memory"] in rows:
                values[names["memory"]] = mount.resident_mb()
    return values, {}


def memory(bench, rows):
    values, archive = {}, bench.work / "extra" / "memory.tar"
    path = made(bench, "memory", lambda at: flat(at, 300))
    if not archive.exists():
        shell(f"tar -C {quoted(path)} -cf {quoted(archive)} .", bench.limit)
    until = time.monotonic() + 4 * bench.limit
    with bench.mounted(path) as mount:
        at = quoted(mount.dir)
        line = (f"grep -rc no-such-word-anywhere {at} >/dev/null; "
                f"mkdir {at}/copied && tar -xf {quoted(archive)} -C {at}/copied && rm -rf {at}/copied")
        for n in range(1, max(ROUNDS) + 1):
            if n > sizes(bench.quick)["rounds"] or time.monotonic() > until:
                break
            drop_pages()
            if not isinstance(measured(line, bench.limit), float):
                break
            if n in ROUNDS:
                mount.sent(lambda: not (path / "copied").exists(), bench.limit)
                values[f"memory-{n}"] = mount.resident_mb()
        # A round that did not end is a row that did not end.
        for n in ROUNDS:
            if n <= sizes(bench.quick)["rounds"]:
                values.setdefault(f"memory-{n}", None)
    shutil.rmtree(path / "copied", ignore_errors=True)
    return values, {}


def idle(bench, rows):
    path = made(bench, "memory", lambda at: flat(at, 300))
    with bench.mounted(path) as mount:
        shell(f"find {quoted(mount.dir)} -type f -printf '%s %p\\n'", bench.limit)
        time.sleep(SETTLE_SECS)
        cpu, carried = mount.cpu_seconds(), mount.server.carried_bytes()
        time.sleep(sizes(bench.quick)["idle_secs"])
        return {
            "idle-bytes": max(0, mount.server.carried_bytes() - carried) / 1000,
            "idle-cpu": mount.cpu_seconds() - cpu,
        }, {}
