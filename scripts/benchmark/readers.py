"""Reads files at the same time, each in a thread, while one more thread asks for the attributes of other files.

readers.py LARGE SMALL COUNT: all files of the directory LARGE are read; COUNT files below SMALL are looked at, one every 50 ms.
Prints the seconds until the last file is read and the longest stat, as JSON."""

import json
import os
import sys
import threading
import time

CHUNK = 1 << 20
PAUSE = 0.05


def read(path):
    file = os.open(path, os.O_RDONLY)
    while os.read(file, CHUNK):
        pass
    os.close(file)


def main(large, small, count):
    readers = [threading.Thread(target=read, args=(entry.path,)) for entry in os.scandir(large)]
    ended, longest = threading.Event(), [0.0]

    def look():
        # By name, without a listing: as a program that opens a file it knows of.
        for n in range(count):
            if ended.is_set():
                return
            began = time.monotonic()
            os.stat(f"{small}/d{n}/f.php")
            longest[0] = max(longest[0], time.monotonic() - began)
            time.sleep(PAUSE)

    looker = threading.Thread(target=look, daemon=True)
    began = time.monotonic()
    looker.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.monotonic() - began
    ended.set()
    looker.join()
    print(json.dumps({"seconds": seconds, "stat": longest[0]}))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
