"""Another writer replaces a file after it was checked, in the round trip before the request that saves, removes or moves over it arrives."""
from caselib import *
H = """
import os, sys
def theirs(px, at):
    px.set('done')
    with open(at + '.new', 'w') as f: f.write("an hour of a teammate's work")
    os.rename(at + '.new', at)
def c2s(p, px):
    if px.has('armed') and not px.has('done') and p.type == 'EXT' and p.strings[:1] == ['hardlink@openssh.com'] and p.strings[1].endswith('code/a.php'):
        theirs(px, sys.argv[2] + '/code/a.php')
    return p
"""
for what in ("save", "remove", "move over"):
    r = Rig(hook=H); f = r.root / "a.php"; f.write_text("old"); os.utime(f, (1, 1)); (r.root / "b.php").write_text("mine")
    try:
        r.mount(); (r.m / "a.php").read_text(); (r.m / "b.php").read_text(); r.flag("armed")
        if what == "save": (r.m / "a.php").write_text("ours")
        elif what == "remove": (r.m / "a.php").unlink()
        else: (r.m / "b.php").rename(r.m / "a.php")
        r.sync(); time.sleep(1); there = f.read_text() if f.exists() else None
        verdict(not r.has("done") or there != "an hour of a teammate's work", f"{what}: arrived in time: {r.has('done')}; the server has {there!r}; kept {r.conflicts()}")
    finally: r.end()
