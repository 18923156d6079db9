"""The usual rows: reading, writing and git in one mount of a tree, in this order."""

import pathlib
import shutil
import time

from benchmark.common import drop_pages, plus, quoted, shell, timed
from benchmark.trees import LARGE_BYTES, OLD_SECS, set_times

NAMES = [
    "find", "find-again", "stat-warm", "grep", "grep-again", "grep-warm", "remount", "find-remount", "grep-remount",
    "grep-young", "missing", "read-large", "save", "save-sent", "untar", "untar-sent", "rm", "rm-sent", "write-large",
    "write-large-sent", "git-status",
]
WARM = {"find-again", "stat-warm", "grep-warm", "missing", "rm"}


def lines(place, extra):
    at = quoted(place)
    find = f"find {at} -type f -printf '%s %p\\n'"
    grep = f"grep -rc --exclude=large.bin no-such-word-anywhere {at}"
    return {
        "find": find, "find-again": find, "find-remount": find,
        "stat-warm": f"find {at} -type f -printf '%s %T@ %m %p\\n'",
        "grep": grep, "grep-again": grep, "grep-warm": grep, "grep-young": grep, "grep-remount": grep,
        "missing": f"i=0; while [ $i -lt 1000 ]; do [ -e {at}/missing$i ]; i=$((i+1)); done",
        "read-large": f"cat {at}/large.bin",
        "save": f"for i in 1 2 3 4 5; do echo $i > {at}/saved.php; done",
        "untar": f"mkdir {at}/copied && tar -xf {quoted(extra)}/small.tar -C {at}/copied",
        "rm": f"rm -rf {at}/copied",
        "write-large": f"cp {quoted(extra)}/written.bin {at}/written.bin",
        "git-status": f"git -C {at} -c core.fsmonitor=false status --porcelain",
    }


def has_all(of, at):
    """Whether `at` has the files of `of` in full."""
    sizes = {path.relative_to(of): path.stat().st_size for path in of.rglob("*") if path.is_file()}

    def is_so():
        try:
            return all((at / name).stat().st_size == size for name, size in sizes.items())
        except OSError:
            return False
    return is_so


def arrivals(site, extra):
    """For each work that sends: whether the server has it."""
    def saved():
        path = site / "saved.php"
        return path.exists() and path.read_text() == "5\n"

    def written():
        path = site / "written.bin"
        return path.exists() and path.stat().st_size == LARGE_BYTES
    return {
        "save": saved,
        "untar": has_all(extra / "small", site / "copied"),
        "rm": lambda: not (site / "copied").exists(),
        "write-large": written,
    }


def clean(site):
    """Removes what a client left behind that could not finish."""
    for name in ("copied", ".git", "inside"):
        shutil.rmtree(site / name, ignore_errors=True)
    for name in ("written.bin", "saved.php"):
        (site / name).unlink(missing_ok=True)


def measure(bench, rows):
    """Values and CPU seconds per row."""
    values, cpu = {}, {}
    with bench.mounted(bench.site) as mount:
        line, arrived = lines(mount.dir, bench.extra), arrivals(bench.site, bench.extra)
        for row in (name for name in NAMES if name in rows):
            if row == "remount":
                values[row] = mount.again()
                continue
            if row.endswith("-sent"):
                base = row.removesuffix("-sent")
                if base not in values:
                    continue
                values[row] = plus(values[base], mount.sent(arrived[base], bench.limit))
                if row == "write-large-sent":
                    pathlib.Path(mount.dir, "written.bin").unlink(missing_ok=True)
                continue
            prepare(bench, mount, row, line)
            if row not in WARM:
                drop_pages()
            before, ended = mount.cpu_seconds(), []
            seconds = timed(lambda: ended.append(shell(line[row], bench.limit)))
            cpu[row] = mount.cpu_seconds() - before
            values[row] = seconds if ended[0] else None
            if row == "grep-young":
                set_times(pathlib.Path(bench.site), time.time() - OLD_SECS)
    clean(bench.site)
    return values, cpu


def prepare(bench, mount, row, line):
    if row == "grep-young":
        set_times(pathlib.Path(bench.site), time.time())
        mount.again()
        shell(line["find"], bench.limit)
    if row == "git-status":
        # The repository appears now; the first look is not counted, since it writes the index for this mount.
        shutil.copytree(bench.extra / "git", bench.site / ".git")
        mount.again()
        shell(line[row], bench.limit)
