"""This machine's clock is 3 s ahead of the server's (here: the server's times are 3 s old): two changes within one second."""
from caselib import *
r = Rig(); f = r.root / "a.php"; f.write_text("z"); os.utime(f, (1, 1))
try:
    r.mount(); t = int(time.time()) - 3; f.write_bytes(b"AAAA"); os.utime(f, (t, t)); one = (r.m / "a.php").read_bytes()
    f.write_bytes(b"BBBB"); os.utime(f, (t, t)); time.sleep(36); two = (r.m / "a.php").read_bytes()
    (r.m / "a.php").write_bytes(b"CCCC"); r.sync()
    # What was shown here may be overwritten here.
    verdict(two != b"BBBB" or f.read_bytes() != b"CCCC" or r.conflicts(), f"read {one}; then the server had BBBB, shown {two}; after our save the server has {f.read_bytes()}, kept {r.conflicts()}")
finally: r.end()
