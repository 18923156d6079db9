"""(a) A new file is being created when the link goes, three times in a row (or for longer than the time limit); the next attempt finds
the file and compares it with ours. Way 1: that comparison is cut off: counts as 'different'. Way 2: the first connection's server
carries out its WRITEs meanwhile: 'different' as well. Nobody else is there."""
from caselib import *
H = """
import os,time
WAY=%d
held=[]
def c2s(p,px):
    if px.n==1 and p.type in('WRITE','FSETSTAT','FSTAT','CLOSE') and px.mem.get('new'):
        held.append(p)
        if p.type=='CLOSE':
            px.set('created')
            if os.fork()==0:                       # what is still in the network, and reaches the old server late
                os.setsid(); [os.close(n) for n in (0,1,2)]; px.wait('deliver',30); [px.to_server(h) for h in held]; time.sleep(0.3); px.set('delivered'); time.sleep(1)
            os._exit(255)
        return None
    if p.type=='OPEN' and (p.path.endswith('f.part') or 'pantheonfs' in p.path) and px.n==1: px.mem['new']=True
    if px.n in(2,3) and (p.path.endswith('f.part') or 'pantheonfs' in p.path): px.die()
    if px.n>=4 and p.type=='OPEN' and (p.path.endswith('f.part') or 'pantheonfs' in p.path) and p.raw[-8:-4]==b'\\0\\0\\0\\1':
        if WAY==1: px.set('refuse'); px.set('cut'); px.die()
        px.set('deliver'); px.wait('delivered')
    return p
"""
for way in (1, 2):
    r = Rig(hook=H % way)
    try:
        r.mount("timeout=5"); os.listdir(r.m); (r.m / "f.part").write_bytes(b"our own bytes " * 100); assert wait(lambda: r.has("created"))
        # A file that is sent under a temporary name is never compared: then nothing is cut here.
        if way == 1 and wait(lambda: r.has("cut"), 8): time.sleep(12); r.unflag("refuse")
        r.sync(60); time.sleep(2); t = r.root / "f.part"
        verdict(r.conflicts() or not t.exists() or t.read_bytes() != b"our own bytes " * 100, f"way {way}: kept as a conflict: {r.conflicts()}; delivered late: {r.has('delivered')}; server has {t.stat().st_size if t.exists() else None} bytes of 1400")
    finally: r.end()
