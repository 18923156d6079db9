"""Rows of a simulated Pantheon site: content from its repository, `git status` in its mount."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import urllib.request

from benchmark.common import PROGRAM, drop_pages, run, shell, timed, wait_for
from benchmark.whole import first_lines

# Until the repository is there (and compared with the server's checksums), and a first look into everything after that.
OBJECTS = {"grep-git": ("git", "repository"), "grep-attested": ("sftp", "repository-attested")}


class Simulated:
    """A Pantheon site with a repository on this machine, whose dev environment is to be mounted."""

    def __init__(self, tree, rtt, mbit, mode, work):
        self.dir = work / "mnt"
        self.dir.mkdir(exist_ok=True)
        for name in ("state", "cache"):
            shutil.rmtree(work / name, ignore_errors=True)
        command = [str(PROGRAM), "sim", "--code", str(tree), "--rtt", str(rtt), "--mbit", str(mbit), "--json"]
        self.sim = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told = json.loads(self.sim.stdout.readline())
        self.env = dict(os.environ, XDG_STATE_HOME=str(work / "state"), XDG_CACHE_HOME=str(work / "cache"), **told["env"])
        order = json.dumps({"environment": "dev", "mode": mode}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{told['control']}/mode", order, {"Content-Type": "application/json"}))
        # Files of a real site are older than two seconds.
        run("find", f"{told['home']['dev']}/code", "-type", "f", "-exec", "touch", "-d", "2 days ago", "{}", "+")
        self.told = told
        self.mode, self.files = mode, sum(1 for path in tree.rglob("*") if path.is_file())

    def mount(self):
        run(PROGRAM, "mount", f"{self.told['site']}.dev", self.dir, "-o", self.told["options"], env=self.env)

    def again(self):
        run(PROGRAM, "umount", self.dir, env=self.env)
        self.mount()

    def repository(self):
        return json.loads(pathlib.Path(self.dir, ".pantheon/status.json").read_text())["repository"]

    def is_ready(self):
        told = self.repository()
        return told["files"] > 0 if self.mode == "git" else told["proved"] >= self.files * 0.95

    def stop(self):
        subprocess.run([PROGRAM, "umount", self.dir], check=False, env=self.env, stderr=subprocess.DEVNULL)
        self.sim.send_signal(signal.SIGTERM)
        self.sim.wait()


def first(bench, rows):
    """Seconds from `pantheonfs mount SITE.dev`, which knows nothing of the site, until one file's bytes are there."""
    site = Simulated(bench.site, bench.rtt, bench.mbit, "sftp", bench.work)
    try:
        line = first_lines(site.dir, bench.site)["first-cat"]
        drop_pages()
        return {"first-cat-site": timed(lambda: (site.mount(), shell(line, bench.limit)))}, {}
    finally:
        site.stop()


def objects(bench, rows):
    """Seconds until the repository is at hand, and of a first look into every file."""
    values = {}
    for name, (mode, ready) in OBJECTS.items():
        if name not in rows and ready not in rows:
            continue
        site = Simulated(bench.site, bench.rtt, bench.mbit, mode, bench.work)
        try:
            site.mount()
            values[ready] = timed(lambda: wait_for("the repository", site.is_ready, bench.limit))
            # The tree is known, as it is in the row without a repository.
            shell(f"find '{site.dir}' -type f -printf '%s %p\\n'", bench.limit)
            drop_pages()
            before = site.repository()
            line = f"grep -rc --exclude-dir=.pantheon --exclude=large.bin no-such-word-anywhere '{site.dir}'"
            values[name] = timed(lambda: shell(line, bench.limit))
            after = site.repository()
            print("#", name, after["read_files"] - before["read_files"], "of", site.files, "files read from the repository")
        finally:
            site.stop()
    return values, {}


def git(bench, rows):
    """Seconds of `git status` in a mounted site."""
    if bench.client == "local":
        return local_git(bench)
    site = Simulated(bench.site, bench.rtt, bench.mbit, "sftp", bench.work)
    status = f"git -C '{site.dir}' status --porcelain"
    shown = (site.dir / ".git").exists
    try:
        site.mount()
        wait_for(".git is shown", shown, bench.limit)
        # The first look compares what is not proved.
        shell(status, bench.limit)
        shell(status, bench.limit)
        values = {"git-mount": timed(lambda: shell(status, bench.limit))}
        site.again()
        wait_for(".git is shown", shown, bench.limit)
        return values | {"git-remount": timed(lambda: shell(status, bench.limit))}, {}
    finally:
        site.stop()


def local_git(bench):
    """Seconds of `git status` in a checkout of the same files, which git compares with its index one by one."""
    checkout = bench.work / "checkout"
    shutil.copytree(bench.site, checkout, symlinks=True)
    command = ["git", "-C", checkout, "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gc.auto=0"]
    for words in [["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]]:
        run(*command, *words)
    status = f"git -C '{checkout}' -c core.fsmonitor=false status --porcelain"
    shell(status, bench.limit)
    seconds = timed(lambda: shell(status, bench.limit))
    shutil.rmtree(checkout)
    return {"git-mount": seconds}, {}
