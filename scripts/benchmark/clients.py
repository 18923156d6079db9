"""The server behind the link, and the clients that mount a directory of it."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmark.common import BARE, HELPERS, PROGRAM, free_port, listens, run, timed, wait_for

# In the environment of every process of a client, so that they are found whoever started them.
MARK = "BENCH_CLIENT_OF"


class Server:
    """An OpenSSH server behind a link. Without loss `pantheonfs link` carries the bytes of connections; with it (as root) the
    server is in a network namespace of its own, and lossy.py carries packets."""

    def __init__(self, work, rtt, mbit, loss):
        self.dir = work / "sshd"
        self.dir.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for kind, name in [("ed25519", "host"), ("rsa", "user")]:
            if not (self.dir / name).exists():
                run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", self.dir / name)
        shutil.copy(self.dir / "user.pub", self.dir / "authorized")
        self.port, self.inside = free_port(), []
        self.host = f"198.18.{os.getpid() % 250}.2" if loss else "127.0.0.1"
        places = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"]
        sftp = next(p for p in places if os.path.exists(p))
        (self.dir / "config").write_text(
            f"Port {self.port}\nListenAddress {'0.0.0.0' if loss else self.host}\nHostKey {self.dir}/host\n"
            f"AuthorizedKeysFile {self.dir}/authorized\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            f"MaxStartups 100\nSubsystem sftp {sftp}\n"
        )
        sshd = ["/usr/sbin/sshd", "-D", "-f", str(self.dir / "config"), "-E", str(self.dir / "log")]
        self.sshd = subprocess.Popen(["unshare", "-n", *sshd] if loss else sshd)
        if loss:
            self.link_port = self.port
            self.lose(rtt, mbit, loss)
        else:
            self.carry(rtt, mbit)
        wait_for("the link listens", lambda: listens(self.link_port, self.host))
        key = (self.dir / "host.pub").read_text().split()[:2]
        (self.dir / "known").write_text(f"[{self.host}]:{self.link_port} {' '.join(key)}\n")
        self.user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()

    def carry(self, rtt, mbit):
        wait_for("sshd listens", lambda: listens(self.port))
        self.link_port = free_port()
        self.link = subprocess.Popen(
            [str(PROGRAM), "link", f"127.0.0.1:{self.port}", "--listen", str(self.link_port), "--rtt", str(rtt), "--mbit", str(mbit)],
            stdout=subprocess.DEVNULL,
        )

    def lose(self, rtt, mbit, loss):
        ours, theirs = (f"bench{os.getpid() % 100_000}{end}" for end in "ab")
        command = [sys.executable, "-B", HELPERS / "lossy.py", ours, theirs, rtt, mbit, loss]
        self.link = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        if self.link.stdout.readline() != "ready\n":
            sys.exit("bench: no TUN devices: --loss needs root and /dev/net/tun")
        own = os.readlink("/proc/self/ns/net")
        wait_for("a network namespace", lambda: os.readlink(f"/proc/{self.sshd.pid}/ns/net") != own)
        self.inside = ["nsenter", "-t", self.sshd.pid, "-n"]
        run("ip", "link", "set", theirs, "netns", self.sshd.pid)
        for before, device, address in [([], ours, self.host[:-1] + "1"), (self.inside, theirs, self.host)]:
            run(*before, "ip", "addr", "add", f"{address}/30", "dev", device)
            run(*before, "ip", "link", "set", device, "up")

    def ssh_options(self):
        """Options of ssh(1), sftp(1) and sshfs(1)."""
        return [f"IdentityFile={self.dir}/user", f"UserKnownHostsFile={self.dir}/known"]

    def carried_bytes(self):
        """Bytes that present connections have carried, both directions; without headers of TCP."""
        command = [*self.inside, "ss", "-tinHO", "state", "established", f"sport = :{self.port}"]
        words = subprocess.run([str(word) for word in command], capture_output=True, text=True).stdout.split()
        return sum(int(word.split(":")[1]) for word in words if word.startswith(("bytes_sent:", "bytes_received:")))

    def stop(self):
        for child in (self.link, self.sshd):
            child.send_signal(signal.SIGTERM)
            child.wait()


class Mount:
    """A directory of the server, mounted by one client. Is not mounted yet, and has empty caches."""

    def __init__(self, client, server, path, work):
        self.client, self.dir, self.path, self.server = client, work / "mnt", path, server
        self.dir.mkdir(exist_ok=True)
        for name in ("state", "cache"):
            shutil.rmtree(work / name, ignore_errors=True)
        self.mark = f"{MARK}={self.dir}"
        self.env = dict(
            os.environ, XDG_STATE_HOME=str(work / "state"), XDG_CACHE_HOME=str(work / "cache"), RCLONE_CONFIG=str(work / "none"),
            **{MARK: str(self.dir)},
        )
        self.child = None

    def mount(self):
        s, path, env = self.server, self.path, self.env
        if self.client == "pantheonfs":
            options = ",".join([*s.ssh_options(), "timeout=60"])
            run(PROGRAM, "mount", f"sftp://{s.user}@{s.host}:{s.link_port}{path}", self.dir, "-o", options, env=env)
        elif self.client == "bare":
            self.child = subprocess.Popen([str(BARE), str(path), str(self.dir)], env=env)
            wait_for("the bare filesystem mounts", lambda: os.path.ismount(self.dir))
        elif self.client == "sshfs":
            options = ",".join([*s.ssh_options(), f"port={s.link_port}", "dir_cache=yes", "max_conns=1", "cache_timeout=20"])
            run("sshfs", f"{s.user}@{s.host}:{path}", self.dir, "-o", options, env=env)
        else:
            remote = f":sftp,host={s.host},port={s.link_port},user={s.user},key_file={s.dir}/user,shell_type=none:{path}"
            self.child = subprocess.Popen(
                ["rclone", "mount", remote, str(self.dir), "--vfs-cache-mode", "full", "--dir-cache-time", "20s",
                 "--no-modtime=false", "--log-level", "ERROR"], env=env)
            wait_for("rclone mounts", lambda: os.path.ismount(self.dir))

    def again(self):
        """Seconds that mounting takes; what is on the local disk stays."""
        self.stop()
        return timed(self.mount)

    def sent(self, arrived, limit):
        """Seconds until the server has what was written; None at the limit. Programs that write later and say nothing are
        watched at the server."""
        began = time.monotonic()
        if self.client == "pantheonfs":
            done = subprocess.run(["timeout", str(limit), PROGRAM, "sync", self.dir], stdout=subprocess.DEVNULL, check=False)
            return time.monotonic() - began if done.returncode != 124 else None
        while not arrived():
            if time.monotonic() - began > limit:
                return None
            time.sleep(0.05)
        return time.monotonic() - began

    def processes(self):
        for place in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if place.name.isdigit() and self.mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                    yield place

    def cpu_seconds(self):
        """CPU time of the driver, with its helpers."""
        ticks = 0
        for place in self.processes():
            with contextlib.suppress(OSError):
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mb(self):
        total = 0
        for place in self.processes():
            with contextlib.suppress(OSError):
                lines = (place / "status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return total * 1024 / 1e6

    def stop(self):
        if self.client == "pantheonfs":
            subprocess.run([PROGRAM, "umount", self.dir], check=False, env=self.env, stderr=subprocess.DEVNULL)
        elif os.path.ismount(self.dir):
            subprocess.run(["fusermount3", "-u", "-z", str(self.dir)], check=False)
        if self.child:
            self.child.wait()
            self.child = None
        wait_for("the mount goes", lambda: not os.path.ismount(self.dir))
        time.sleep(0.3)


class Local:
    """The tree itself, on the local disk."""

    def __init__(self, path):
        self.client, self.dir = "local", path

    def mount(self):
        pass

    def again(self):
        return 0.0

    def sent(self, arrived, limit):
        return 0.0

    def cpu_seconds(self):
        return 0.0

    def resident_mb(self):
        return 0.0

    def stop(self):
        pass


@dataclass
class Bench:
    """What the measurements of one client at one link have in common."""

    client: str
    site: pathlib.Path
    extra: pathlib.Path
    work: pathlib.Path
    rtt: int
    mbit: int
    loss: float
    limit: int
    quick: bool

    @contextlib.contextmanager
    def served(self):
        server = Server(self.work, self.rtt, self.mbit, self.loss)
        try:
            yield server
        finally:
            server.stop()

    @contextlib.contextmanager
    def unmounted(self, path):
        """A client with empty caches that has not mounted the path yet."""
        if self.client == "local":
            yield Local(path)
            return
        with self.served() as server:
            mount = Mount(self.client, server, path, self.work)
            try:
                yield mount
            finally:
                mount.stop()

    @contextlib.contextmanager
    def mounted(self, path):
        with self.unmounted(path) as mount:
            mount.mount()
            yield mount

    @contextlib.contextmanager
    def without_large(self):
        """The tree without its large file, for work that cannot leave it out."""
        large, aside = self.site / "large.bin", self.work / "large-aside"
        large.rename(aside)
        try:
            yield
        finally:
            aside.rename(large)
