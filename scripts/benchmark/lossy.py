"""A link that loses packets: two TUN devices, and between them a delay, a bandwidth with a queue, and random loss.

lossy.py NAME_A NAME_B RTT_MS MBIT LOSS_PERCENT, as root. The devices exist as long as it runs; "ready" is printed when they do.
TCP itself sees what is lost, unlike on `pantheonfs link`, which carries the bytes of a connection."""

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x1, 0x1000
MTU = 1500
# A packet that would wait longer before it is sent is dropped, as a router with a full queue does.
QUEUE_SECS = 0.1
# Packets taken at a time before others are given.
BATCH = 64


def tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


class Direction:
    """Packets on their way from one device to the other, in order."""

    def __init__(self, source, target, delay, bytes_per_sec, loss, dice):
        self.source, self.target, self.delay, self.rate = source, target, delay, bytes_per_sec
        self.loss, self.dice, self.free_at, self.packets = loss, dice, 0.0, deque()

    def take(self):
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, MTU + 64)
            except BlockingIOError:
                return
            now = time.monotonic()
            start = max(now, self.free_at)
            if start - now > QUEUE_SECS:
                continue
            # What is lost has taken its time on the line.
            self.free_at = start + (len(packet) / self.rate if self.rate else 0.0)
            if self.dice.random() >= self.loss:
                self.packets.append((self.free_at + self.delay, packet))

    def give(self):
        """Gives what has arrived; returns when the next one does."""
        while self.packets and self.packets[0][0] <= time.monotonic():
            try:
                os.write(self.target, self.packets.popleft()[1])
            except OSError:
                # The device is not up yet, or no longer.
                pass
        return self.packets[0][0] if self.packets else None


def main(name_a, name_b, rtt_ms, mbit, loss_percent):
    a, b = tun(name_a), tun(name_b)
    rate, dice = mbit * 1e6 / 8, random.Random(4)
    there, back = (Direction(*ends, rtt_ms / 2000, rate, loss_percent / 100, dice) for ends in ((a, b), (b, a)))
    print("ready", flush=True)
    while True:
        due = [at for at in (there.give(), back.give()) if at is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        for device in select.select([a, b], [], [], wait)[0]:
            (there if device == a else back).take()


main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]))
