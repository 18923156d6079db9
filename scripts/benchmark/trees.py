"""The trees that are mounted. Each is the same every time."""

import os
import random
import sys
import time

from benchmark.common import ROOT, run

# How old the files of a site are, but for those that were just changed.
OLD_SECS = 7 * 86_400
LARGE_BYTES = 32_000_000


def drupal_sized(at, files=20_000, directories=2_500):
    """A tree of about 130 MB with sizes as code has them, many small, few large, and ten levels deep, as Drupal with its
    vendor directory is."""
    dice = random.Random(20_000)
    places, shallow = [at], [at]
    for n in range(directories):
        place = dice.choice(shallow) / f"d{n}"
        place.mkdir(parents=True, exist_ok=True)
        places.append(place)
        if len(place.relative_to(at).parts) < 10:
            shallow.append(place)
    words = [f"word{n} " for n in range(997)]
    for n in range(files):
        size = min(int(dice.lognormvariate(7.8, 1.4)), 600_000)
        text = "".join(dice.choice(words) for _ in range(size // 7 + 1))[:size]
        (dice.choice(places) / f"f{n}.php").write_text(text)


def wordpress(at):
    source = ROOT / "target/wordpress/usr/share/wordpress"
    if not source.exists():
        sys.exit("bench: target/wordpress is missing; run scripts/setup first")
    # Debian links some of it from elsewhere; what leads nowhere is left out.
    run("cp", "-r", source, at)
    for path in list(at.rglob("*")):
        if path.is_symlink():
            path.unlink()


def flat(at, files, each=20, size=1000):
    """Files of one size, `each` in a directory, the directories in groups of 50."""
    for n in range(files):
        place = at / f"g{n // each // 50}" / f"d{n // each}"
        if n % each == 0:
            place.mkdir(parents=True, exist_ok=True)
        line = f"<?php // file {n}\n"
        (place / f"f{n}.php").write_text((line * (size // len(line) + 1))[:size])
    set_times(at, time.time() - OLD_SECS)


TREES = {
    "wordpress": wordpress,
    "drupal": drupal_sized,
    # For a look whether everything works.
    "small": lambda at: drupal_sized(at, files=400, directories=50),
}


def tree(name, work):
    at = work / "trees" / name
    if at.exists():
        return at
    if name == "wordpress":
        at.parent.mkdir(parents=True, exist_ok=True)
    else:
        at.mkdir(parents=True)
    TREES[name](at)
    set_times(at, time.time() - OLD_SECS)
    (at / "large.bin").write_bytes(random.Random(1).randbytes(LARGE_BYTES))
    return at


def facts(at):
    """What of a tree matters for its figures; without the large file."""
    sizes = [path.stat().st_size for path in at.rglob("*") if path.is_file() and path.name != "large.bin"]
    return {"files": len(sizes), "directories": sum(1 for path in at.rglob("*") if path.is_dir()), "bytes": sum(sizes)}


def set_times(at, secs):
    for path in at.rglob("*"):
        if path.is_file():
            os.utime(path, (secs, secs))


def extras(work):
    """What is written into the mounts: an archive of 3,000 small files, and a file of 32 MB."""
    extra = work / "extra"
    for n in range(3000):
        (extra / "small" / f"d{n % 60}").mkdir(parents=True, exist_ok=True)
        (extra / "small" / f"d{n % 60}" / f"f{n}.php").write_text(f"<?php // {n}\n" * (n % 300 + 1))
    run("tar", "-C", extra / "small", "-cf", extra / "small.tar", ".")
    (extra / "written.bin").write_bytes(random.Random(2).randbytes(LARGE_BYTES))
    return extra


def repository(site, extra):
    """A .git of the tree, kept aside until the row that shows it."""
    git = ["git", "-C", site, "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gc.auto=0", "-c", "maintenance.auto=false"]
    for words in [["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["repack", "-adq"]]:
        run(*git, *words)
    (site / ".git").rename(extra / "git")
