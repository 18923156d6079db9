"""Results: the JSON of a run and of runs that are added, medians, the table, comparison with an earlier run."""

import json
import statistics

from benchmark.common import CLIENTS, FAILED
from benchmark.rows import BY_NAME

SLOWER = 1.10
# Differences that no clock of a busy machine tells apart.
GRAIN = {"s": 0.01, "CPU s": 0.02, "MB": 0.5, "kB": 0.5}
# The link of what has no server behind it.
NO_LINK = ("-", "-", "-")
# Where a value was measured.
PLACE = ("tree", "rtt_ms", "mbit", "loss_percent")
ORDER = [*CLIENTS, "local"]


class Results:
    """Sources (runs) and, for each tree, link and client, values with the source that they are of. A later value of the same
    row takes the place of an earlier one."""

    def __init__(self):
        self.sources, self.trees, self.entries = [], {}, {}

    @classmethod
    def of(cls, document):
        results = cls()
        results.add(document)
        return results

    def add(self, document):
        """Takes over a document of --json."""
        base = len(self.sources)
        self.sources += document["sources"]
        self.trees |= document["trees"]
        for entry in document["results"]:
            for source, values in entry["values"].items():
                self.put(tuple(entry[key] for key in PLACE), entry["client"], base + int(source), values,
                         entry.get("cpu_seconds", {}).get(source, {}))

    def put(self, place, client, source, values, cpu):
        cells = self.entries.setdefault((*place, client), {})
        for row, value in values.items():
            cells[row] = (source, value, cpu.get(row))

    def document(self):
        used = sorted({source for cells in self.entries.values() for source, _, _ in cells.values()})
        number = {source: n for n, source in enumerate(used)}
        results = []
        for (*place, client), cells in self.entries.items():
            values, cpu = {}, {}
            for row, (source, value, seconds) in cells.items():
                values.setdefault(str(number[source]), {})[row] = value
                if seconds is not None:
                    cpu.setdefault(str(number[source]), {})[row] = seconds
            results.append({**dict(zip(PLACE, place)), "client": client, "values": values, "cpu_seconds": cpu})
        return {"sources": [self.sources[n] for n in used], "trees": self.trees, "results": results}

    def places(self):
        """Trees and links, in the order in which they were measured. What has no link has the first place of its tree."""
        return list(dict.fromkeys(key[:-1] for key in self.entries if key[1] != "-"))

    def clients(self, place):
        """Cells of each client at a place; those without a link are at every place of their tree."""
        found = {}
        for client in ORDER:
            for link in (place[1:], NO_LINK):
                if cells := self.entries.get((place[0], *link, client)):
                    found[client] = cells
        return found

    def limit(self, source):
        return self.sources[source]["limit_secs"]


def load(path):
    return Results.of(json.loads(path.read_text()))


def medians(runs):
    """The median of each row; None (the limit) or FAILED if one of the runs was that."""
    out = {}
    for row in dict.fromkeys(row for run in runs for row in run):
        values = [run[row] for run in runs if row in run]
        other = [value for value in values if not isinstance(value, (int, float))]
        out[row] = other[0] if other else round(statistics.median(values), 3)
    return out


def shown(row, value, limit):
    """A value in few digits."""
    if value is None:
        return f"> {limit}" if BY_NAME[row].unit == "s" else "stopped"
    if value == FAILED:
        return FAILED
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def link_name(rtt, mbit, loss):
    return f"{rtt} ms, {mbit or 'unlimited'} Mbit/s" + (f", {loss:g} % loss" if loss else "")


def rows_of(results, place):
    """Rows that a client has at a place, in the order of the list."""
    has = {row for cells in results.clients(place).values() for row in cells}
    return [row for row in BY_NAME if row in has]


def labelled(row):
    unit = BY_NAME[row].unit
    return f"`{row}`: {BY_NAME[row].label}" + ("" if unit == "s" else f", {unit}")


def markdown(header, body):
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table(results, place):
    clients = results.clients(place)
    body = []
    for row in rows_of(results, place):
        cells = [shown(row, cells[row][1], results.limit(cells[row][0])) if row in cells else "" for cells in clients.values()]
        body.append([labelled(row), *cells])
    return markdown(["", *clients], body)


def ratio(row, old, new):
    """New in proportion to old, and whether that is slower by 10 % or more; None if there is nothing to compare."""
    if not isinstance(old, (int, float)) or not isinstance(new, (int, float)):
        if old == new:
            return None
        worse = not isinstance(new, (int, float)) and isinstance(old, (int, float))
        name = {None: "limit", FAILED: FAILED}
        return f"{name.get(old, old)} → {name.get(new, new)}", worse
    if old <= 0:
        return (f"{old} → {new}", new > GRAIN[BY_NAME[row].unit]) if new > 0 else None
    return f"{new / old:.2f}", new >= SLOWER * old and new - old >= GRAIN[BY_NAME[row].unit]


def compare(new, old):
    """Ratios new/old of what both have, as text, and the rows that became slower."""
    out, slower = [], []
    for place in new.places():
        clients, before = new.clients(place), old.clients(place)
        both = [client for client in clients if client in before]
        body = []
        for row in rows_of(new, place):
            cells = []
            for client in both:
                found = None
                if row in clients[client] and row in before[client]:
                    found = ratio(row, before[client][row][1], clients[client][row][1])
                cells.append("" if found is None else found[0] + (" SLOWER" if found[1] else ""))
                if found and found[1]:
                    slower.append(f"{place[0]}, {link_name(*place[1:])}, {client}, {row}: {found[0]}")
            if any(cells):
                body.append([labelled(row), *cells])
        if body:
            out += [f"\n{place[0]}, {link_name(*place[1:])}: new / old\n", markdown(["", *both], body)]
    if not out:
        out.append("\nNothing to compare: no tree, link and client is in both.")
    if any(s["quick"] for s in new.sources) != any(s["quick"] for s in old.sources):
        out.append("\nOne of the two runs was quick: rows with trees of their own are smaller there.")
    out.append(f"\n{len(slower)} row(s) slower by 10 % or more" + (":" if slower else ""))
    return "\n".join([*out, *slower])
