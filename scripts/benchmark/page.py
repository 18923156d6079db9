"""docs/PERFORMANCE.md and docs/bench.svg, from results."""

import math
import string

from benchmark.common import CLIENTS
from benchmark.results import labelled, link_name, markdown, rows_of, shown
from benchmark.rows import BY_NAME, CPU
from benchmark.trees import LARGE_BYTES

INTRO = """# Speed

This page is written by `scripts/bench` from [bench.json](bench.json) (`scripts/bench --no-run --add docs/bench.json --page
docs/PERFORMANCE.md`); a test compares the two. What the clients do differently is in [COMPARISON.md](COMPARISON.md), what mounts
ask of the platform in [PLATFORM-LOAD.md](PLATFORM-LOAD.md).

Each client does the same work on an OpenSSH server on the same machine, behind a simulated link with a round trip and a
bandwidth; where a loss is named, that many of the packets are lost each way. Values are medians, in seconds if no other unit is named; `> 300` means that the work was stopped at that limit,
and an empty cell that it was not measured or that the client does not have it. The kernel's pages are dropped before each
row that is not called warm or "again" of its kind. `bare` is a directory in memory behind the same FUSE library, `local` the
local disk, `rsync` and `sftp` copy the tree instead of mounting it. Loads of other programs on the machine make values
worse; the load at the start of a run is given."""
COLOURS = {
    "bare": "#868e96", "pantheonfs": "#0b7285", "sshfs": "#e8590c", "rclone": "#ae3ec9", "rsync": "#2b8a3e",
    "sftp": "#5c940d", "local": "#adb5bd",
}


def letter(source):
    return string.ascii_uppercase[source]


def sources(results):
    """How each run was made."""
    facts = {
        "date": lambda s: s["date"],
        "commit": lambda s: s["commit"],
        "machine": lambda s: s["machine"],
        "system": lambda s: s["system"],
        "load at the start": lambda s: s["load"],
        "runs per value": lambda s: f"{s['runs']}{'; quick: less in rows with trees of their own' if s['quick'] else ''}",
        "versions": lambda s: "; ".join([s["pantheonfs"], *(v for v in s["programs"].values())]),
        "note": lambda s: s["note"],
    }
    body = [[name, *(fact(source).replace("|", "/") for source in results.sources)] for name, fact in facts.items()]
    return markdown(["run", *(letter(n) for n in range(len(results.sources)))], [line for line in body if any(line[1:])])


def clients_with_runs(results, place):
    """Names of the columns; with the letters of the runs where there are several."""
    names = []
    for client, cells in results.clients(place).items():
        letters = ", ".join(letter(n) for n in sorted({source for source, _, _ in cells.values()}))
        names.append(client if len(results.sources) == 1 else f"{client} ({letters})")
    return names


def place_table(results, place):
    clients = results.clients(place)
    body = []
    for row in rows_of(results, place):
        cells = [shown(row, cells[row][1], results.limit(cells[row][0])) if row in cells else "" for cells in clients.values()]
        body.append([labelled(row), *cells])
    return markdown(["", *clients_with_runs(results, place)], body)


def cpu_table(results, place):
    """CPU seconds of the driver per GB that was read. Empty if no client has any."""
    read = {"tree": results.trees.get(place[0], {}).get("bytes", 0), "large": LARGE_BYTES}
    clients = {name: cells for name, cells in results.clients(place).items() if name not in ("local", "rsync", "sftp")}
    body = []
    for row, what in CPU.items():
        cells = []
        for values in clients.values():
            _, value, seconds = values.get(row, (None, None, None))
            # The driver of a work that was stopped has not read everything.
            known = seconds is not None and isinstance(value, (int, float)) and read[what]
            cells.append(f"{seconds / (read[what] / 1e9):.1f}" if known else "")
        if any(cells):
            body.append([labelled(row), *cells])
    return markdown(["CPU seconds per GB read", *clients], body) if body else ""


def page(results):
    out = [INTRO, "## Runs", sources(results)]
    for place in results.places():
        tree = results.trees.get(place[0])
        out.append(f"## {place[0]}, {link_name(*place[1:])}")
        if tree:
            least = f" Transferring the bytes alone takes {tree['bytes'] * 8 / place[2] / 1e6:.1f} s." if place[2] else ""
            out.append(f"{tree['files']:,} files in {tree['directories']:,} directories, {tree['bytes'] / 1e6:.1f} MB.{least}")
        out.append(place_table(results, place))
        if cpu := cpu_table(results, place):
            out.append(cpu)
    used = dict.fromkeys(row for place in results.places() for row in rows_of(results, place))
    rows = [[f"`{row.name}`", row.what] for row in BY_NAME.values() if row.name in used]
    out += ["## What the rows measure", markdown(["row", "what"], rows)]
    if results.places():
        out.append("![The same as a chart](bench.svg)")
    return "\n\n".join(out) + "\n"


def chart(results):
    """Bars on a logarithmic scale, one group per row, of the last tree of a site at its slowest link."""
    place = max((place for place in results.places() if place[0] != "own"), key=lambda p: (p[0] == "drupal", p[1], -p[2], -p[3]))
    rows = results.clients(place)
    rows = {client: rows[client] for client in [*CLIENTS, "local"] if client in rows}
    names = [row for row in rows_of(results, place) if BY_NAME[row].unit == "s"]
    left, width, bar = 210, 520, 11
    group = bar * len(rows) + 10
    height = 60 + group * len(names)
    low, high = 0.005, max(results.limit(source) for cells in rows.values() for source, _, _ in cells.values())
    at = lambda s: left + width * (math.log10(min(max(s, low), high) / low) / math.log10(high / low))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="16" font-weight="bold">{place[0]}, {link_name(*place[1:])}: '
        'seconds, less is better (logarithmic)</text>',
    ]
    for n, client in enumerate(rows):
        out.append(f'<rect x="{left + 85 * n}" y="26" width="10" height="10" fill="{COLOURS[client]}"/>')
        out.append(f'<text x="{left + 85 * n + 15}" y="35">{client}</text>')
    for n, row in enumerate(names):
        top = 50 + n * group
        out.append(f'<text x="{left - 8}" y="{top + group / 2}" text-anchor="end">{BY_NAME[row].label}</text>')
        for m, (client, cells) in enumerate(rows.items()):
            if row not in cells:
                continue
            source, value, _ = cells[row]
            y, number = top + m * bar, isinstance(value, (int, float))
            end, text = at(value if number else high), shown(row, value, results.limit(source)).replace(">", "more than")
            out.append(f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="{bar - 2}" fill="{COLOURS[client]}"/>')
            out.append(f'<text x="{end + 4:.1f}" y="{y + 8}" font-size="9">{text}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"
