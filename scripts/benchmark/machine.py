"""On what a run was made: commit, date, machine, versions of all programs."""

import os
import pathlib
import shutil
import subprocess
import time

from benchmark.common import PROGRAM, ROOT

VERSIONS = {
    "sshfs": ["sshfs", "--version"], "rclone": ["rclone", "--version"], "rsync": ["rsync", "--version"],
    "OpenSSH": ["ssh", "-V"], "git": ["git", "--version"], "fusermount3": ["fusermount3", "--version"],
}


def output(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, check=False)
    return (done.stdout or done.stderr).strip()


def first_line(text):
    return text.splitlines()[0] if text else "not known"


def version(text, name):
    """The line that names the program; sshfs says first what fusermount3 says."""
    named = [line for line in text.splitlines() if line.lower().startswith(name.lower())]
    return first_line(named[0] if named else text)


def value_of(path, key):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(key):
            return line.split("=" if "=" in line else ":", 1)[1].strip().strip('"')
    return "not known"


def source(args):
    """All that a reader of the figures must know about how they came to be."""
    programs = {name: version(output(*command), name) for name, command in VERSIONS.items() if shutil.which(command[0])}
    # A program that was built elsewhere may be of any commit.
    commit = args.commit or (output("git", "describe", "--always", "--dirty", "--match=v*") if "PANTHEONFS" not in os.environ else "not known")
    memory_gb = round(int(value_of("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "pantheonfs": first_line(output(PROGRAM, "--version")),
        "programs": programs,
        "machine": f"{value_of('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores, {memory_gb} GB",
        "system": f"{value_of('/etc/os-release', 'PRETTY_NAME')}, Linux {os.uname().release}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "runs": args.runs,
        "limit_secs": args.limit,
        "quick": args.quick,
        "note": args.note,
    }
