"""Rows of a whole tree from empty caches: the first look after `mount`, an IDE's index, copies."""

import sys

from benchmark.common import HELPERS, FAILED, drop_pages, measured, plus, quoted, shell, timed
from benchmark.usual import clean, has_all

FIRST = ["first-cat", "first-ls", "first-grep"]
INDEX = ["ide-index", "ide-index-warm", "ide-index-remount"]
COPY = ["cp-out", "cp-inside", "cp-inside-sent"]


def first_lines(place, site):
    """The first work of each kind. The file lies in the middle of the list of all."""
    files = sorted(path.relative_to(site) for path in site.rglob("*.php"))
    return {
        "first-cat": f"cat {quoted(place / files[len(files) // 2])}",
        "first-ls": f"ls -l {quoted(place)}/",
        "first-grep": f"grep -rc --exclude=large.bin no-such-word-anywhere {quoted(place)}",
    }


def first(bench, rows):
    values = {}
    for row in (name for name in FIRST if name in rows):
        with bench.unmounted(bench.site) as mount:
            line = first_lines(mount.dir, bench.site)[row]
            drop_pages()
            ended = []
            seconds = timed(lambda: (mount.mount(), ended.append(shell(line, bench.limit))))
            values[row] = seconds if ended[0] else None
    return values, {}


def index(bench, rows):
    values = {}
    with bench.mounted(bench.site) as mount:
        line = f"{quoted(sys.executable)} {quoted(HELPERS / 'index.py')} {quoted(mount.dir)}"
        drop_pages()
        for row in (name for name in INDEX if name in rows):
            if row == "ide-index-remount":
                mount.again()
                drop_pages()
            values[row] = measured(line, bench.limit)
    return values, {}


def copies(bench, rows):
    values = {}
    with bench.without_large():
        if "cp-out" in rows:
            out = bench.work / "copied-out"
            with bench.mounted(bench.site) as mount:
                drop_pages()
                values["cp-out"] = measured(f"cp -r {quoted(mount.dir)} {quoted(out)}", bench.limit)
            if values["cp-out"] not in (None, FAILED) and not has_all(bench.site, out)():
                print("# failed: cp-out: the copy is not complete", file=sys.stderr)
                values["cp-out"] = FAILED
            shell(f"rm -rf {quoted(out)}", bench.limit)
        if "cp-inside" in rows:
            arrived = has_all(bench.site, bench.site / "inside")
            with bench.mounted(bench.site) as mount:
                at = quoted(mount.dir)
                line = f"mkdir {at}/inside && find {at} -mindepth 1 -maxdepth 1 ! -name inside -exec cp -r -t {at}/inside {{}} +"
                drop_pages()
                values["cp-inside"] = measured(line, bench.limit)
                if "cp-inside-sent" in rows:
                    values["cp-inside-sent"] = plus(values["cp-inside"], mount.sent(arrived, bench.limit))
            clean(bench.site)
    return values, {}
