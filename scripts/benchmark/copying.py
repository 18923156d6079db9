"""rsync and sftp -r: the way of those who copy a site to and fro instead of mounting it."""

import shutil
import time

from benchmark.common import drop_pages, measured, plus, quoted
from benchmark.own import patch_line, patched
from benchmark.usual import clean, lines
from benchmark.whole import FIRST, first_lines


AGAIN = ["find-remount", "grep-remount"]
UP = ["save-sent", "untar-sent", "rm-sent", "write-large-sent"]
ROWS = [*FIRST, *AGAIN, *UP]


class Copy:
    """A directory of the server and a local copy of it."""

    def __init__(self, client, server, remote, local, limit):
        self.client, self.server, self.remote, self.local, self.limit = client, server, remote, local, limit
        shutil.rmtree(local, ignore_errors=True)
        self.options = " ".join(f"-o {option}" for option in server.ssh_options())

    def down(self):
        """Seconds of copying from the server what differs."""
        s = self.server
        if self.client == "sftp":
            return measured(f"sftp -q -r -p {self.options} -P {s.link_port} {s.user}@{s.host}:{quoted(self.remote)} {quoted(self.local)}", self.limit)
        return self.rsync(f"{s.user}@{s.host}:{self.remote}/", f"{self.local}/")

    def up(self):
        """Seconds of copying to the server what differs, removals included."""
        return self.rsync(f"{self.local}/", f"{self.server.user}@{self.server.host}:{self.remote}/")

    def rsync(self, source, target):
        ssh = f"ssh -p {self.server.link_port} {self.options}"
        return measured(f"rsync -a --delete -e {quoted(ssh)} {quoted(source)} {quoted(target)}", self.limit)


def tree(bench, rows):
    """The rows of a tree; the large file is not in it, as it is not in the mounts' rows either."""
    values, local = {}, bench.work / "copy"
    with bench.without_large(), bench.served() as server:
        copy = Copy(bench.client, server, bench.site, local, bench.limit)
        drop_pages()
        copied = copy.down()
        line = first_lines(local, bench.site) | lines(local, bench.extra)
        for row in (name for name in FIRST if name in rows):
            values[row] = plus(copied, measured(f"{line[row]} || [ $? -eq 1 ]", bench.limit))
        for row in (name for name in AGAIN if name in rows):
            drop_pages()
            values[row] = plus(copy.down(), measured(f"{line[row]} || [ $? -eq 1 ]", bench.limit))
        for row in (name for name in UP if name in rows):
            values[row] = plus(measured(line[row.removesuffix("-sent")], bench.limit), copy.up())
    clean(bench.site)
    shutil.rmtree(local, ignore_errors=True)
    return values, {}


def patch(bench, rows):
    path, at, _ = patched(bench)
    local = bench.work / "copy"
    with bench.served() as server:
        copy = Copy(bench.client, server, path, local, bench.limit)
        copy.down()
        # rsync takes a file of the same size and second for the same.
        time.sleep(1.1)
        drop_pages()
        values = {"patch-large-sent": plus(measured(patch_line(local / "large.bin", at), bench.limit), copy.up())}
    shutil.rmtree(local, ignore_errors=True)
    return values, {}
