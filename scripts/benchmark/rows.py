"""The rows: what each measures, in which unit, and which clients have it."""

from dataclasses import dataclass

MOUNTS = frozenset({"pantheonfs", "sshfs", "rclone"})
# What can be asked of a filesystem that takes no changes.
READING = MOUNTS | {"bare", "local"}
WRITING = MOUNTS | {"local"}
SENDING = MOUNTS | {"rsync"}
COPIES = frozenset({"rsync", "sftp"})
OURS = frozenset({"pantheonfs"})


@dataclass(frozen=True)
class Row:
    name: str
    label: str
    what: str
    clients: frozenset
    unit: str = "s"


FIND = "find -type f -printf '%s %p'"
ROWS = [
    Row("first-cat", "mount and read one file", "from the start of `mount` with empty caches until one file's bytes are there; the copies: after everything is copied", MOUNTS | COPIES),
    Row("first-cat-site", "the same of a site", "`first-cat` of a simulated Pantheon site: the platform is asked before, each answer after one round trip", OURS),
    Row("first-ls", "mount and ls -l", "the same until `ls -l` of the root has ended", MOUNTS | COPIES),
    Row("first-grep", "mount and grep -r", "the same until `grep -r` over everything has ended", MOUNTS | COPIES),
    Row("find", "find, cold", f"{FIND}, the first work after a mount with empty caches", READING),
    Row("find-again", "find again", "the same again, at once", READING),
    Row("stat-warm", "stat of everything, warm", "find with size, time and mode of every file, once more", READING),
    Row("grep", "grep -r, cold", "grep -r for a word that no file has; the names are known, no content is", READING),
    Row("grep-again", "grep -r again", "the same again without the kernel's pages: what the client itself keeps", READING),
    Row("grep-warm", "grep -r, pages in memory", "the same again, with the kernel's pages", READING),
    Row("remount", "mounting again", "from the start of `mount` until it is there; local caches are kept", MOUNTS),
    Row("find-remount", "find after a remount", "find after that; rsync: after the whole tree was compared again", WRITING | {"rsync"}),
    Row("grep-remount", "grep -r after a remount", "grep -r after that; rsync: as above", WRITING | {"rsync"}),
    Row("grep-young", "grep -r, all just changed", "grep -r when each file is as young as the last second", WRITING),
    Row("missing", "1,000 names that do not exist", "a shell asks for 1,000 names that are not there", READING),
    Row("read-large", "read 32 MB", "one file of 32 MB, cold", READING),
    Row("save", "5 saves", "a file is written five times", WRITING),
    Row("save-sent", "... until sent", "`save`, until the server has the last content", SENDING),
    Row("untar", "untar 3,000 files", "tar -x of 3,000 small files in 60 directories", WRITING),
    Row("untar-sent", "... until sent", "`untar`, until the server has them", SENDING),
    Row("rm", "rm -r of them", "rm -rf of what was unpacked", WRITING),
    Row("rm-sent", "... until sent", "`rm`, until the server has removed them", SENDING),
    Row("write-large", "write 32 MB", "cp of a file of 32 MB into the mount", WRITING),
    Row("write-large-sent", "... until sent", "`write-large`, until the server has it", SENDING),
    Row("git-status", "git status", "git status with a .git on the server, warm, without fsmonitor", WRITING),
    Row("ide-index", "an IDE's index, cold", "inotify watches on all directories, stat of all files, all .php read by 4 threads; the first work after a mount with empty caches", READING),
    Row("ide-index-warm", "... again", "the same at once", READING),
    Row("ide-index-remount", "... after a remount", "the same after a remount", MOUNTS),
    Row("cp-out", "cp -r out of the mount", "the whole tree to the local disk, the first work after a mount with empty caches", READING),
    Row("cp-inside", "cp -r inside the mount", "the whole tree to a new directory beside it, the first work after a mount with empty caches", WRITING),
    Row("cp-inside-sent", "... until sent", "`cp-inside`, until the server has it", MOUNTS),
    Row("repository", "until the repository is here", "Git mode, simulated site: from the end of `mount` until the repository is fetched", OURS),
    Row("grep-git", "grep -r, cold, Git mode", "grep -r with the repository of a simulated site in Git mode", OURS),
    Row("repository-attested", "until files are proved", "SFTP mode, simulated site: until the repository is fetched and compared with the server's checksums", OURS),
    Row("grep-attested", "grep -r, cold, attested", "grep -r after that", OURS),
    Row("git-mount", "git status, site", "git status with the .git of a mounted site, warm; local: in a checkout", OURS | {"local"}),
    Row("git-remount", "... after a remount", "the same right after a remount", OURS),
    Row("read-16", "16 readers of 16 MB", "16 different files of 16 MB are read at the same time, cold", WRITING),
    Row("read-16-stat", "... the longest stat meanwhile", "the longest of the calls of stat, for a new name each, that another thread makes meanwhile", WRITING),
    Row("patch-large", "a byte of 64 MB changed", "open, one byte written in the middle, close, of a file of 64 MB that was not read before", WRITING),
    Row("patch-large-sent", "... until sent", "`patch-large`, until the server has it; rsync: with a copy that is there", SENDING),
]
# How the cost grows with the number of files.
GROWTH = [1, 10, 100]
GROWTH_BASE = 200
for times in GROWTH:
    ROWS += [
        Row(f"growth-find-{times}", f"find, {GROWTH_BASE * times:,} files", f"find, cold, in a tree of {GROWTH_BASE * times:,} files of 1 kB, 20 in a directory", WRITING),
        Row(f"growth-grep-{times}", f"grep -r, {GROWTH_BASE * times:,} files", "grep -r of them after that, content cold", WRITING),
        Row(f"growth-memory-{times}", f"memory, {GROWTH_BASE * times:,} files", "resident memory of the driver after that, its helpers included", MOUNTS, "MB"),
    ]
ROUNDS = [1, 10, 100]
for times in ROUNDS:
    ROWS.append(Row(f"memory-{times}", f"memory, {times} rounds", f"resident memory of the driver after {times} round(s) of grep -r, untar and rm -r of 300 files", MOUNTS, "MB"))
ROWS += [
    Row("idle-bytes", "a minute idle, on the link", "bytes in both directions in 60 s without any work, after a find", MOUNTS, "kB"),
    Row("idle-cpu", "a minute idle, CPU", "CPU seconds of the driver in that minute", MOUNTS, "CPU s"),
]
BY_NAME = {row.name: row for row in ROWS}
# Rows that are lower in the table of CPU time, and the bytes that they read: of the tree, or of the large file.
CPU = {"grep": "tree", "grep-again": "tree", "grep-remount": "tree", "read-large": "large"}


def help_text():
    """The rows for --help."""
    lines = ["rows (--works), in seconds if no other unit is named; NAME-sent needs NAME:"]
    for row in ROWS:
        unit = "" if row.unit == "s" else f" [{row.unit}]"
        lines.append(f"  {row.name:20} {row.what}{unit}")
    return "\n".join(lines)
