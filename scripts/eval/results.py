"""The files in docs/results: one per document, each a list of measurements that together are the
current state.

    {"schema": "gilprof.eval/1", "name": "accuracy", "measurements": [
       {"date": …, "commit": …, "machine": {…}, "versions": {…}, "options": {…},
        "checks": […], "rows": […]}, …]}

Each check and row belongs to a `part`. A new measurement replaces the parts that it covers; the
other parts keep the measurement, and thus the commit and date, that they came from.
"""
import json
import os

from common import REPOSITORY, UsageError, replace_file

SCHEMA = "gilprof.eval/1"
FOLDER = os.path.join(REPOSITORY, "docs", "results")


def path_of(name):
    return os.path.join(FOLDER, name + ".json")


def load(name):
    path = path_of(name)
    if not os.path.exists(path):
        return {"schema": SCHEMA, "name": name, "measurements": []}
    with open(path) as file:
        found = json.load(file)
    if found.get("schema") != SCHEMA:
        raise UsageError("failed to read %s: its schema is %r, not %s" % (path, found.get("schema"), SCHEMA))
    return found


def entries(document, kind):
    """All `checks` or `rows` of all measurements, in their order."""
    return [entry for one in document["measurements"] for entry in one[kind]]


def merge(document, new):
    """The document with a new measurement in place of the parts that it covers."""
    covered = {entry["part"] for kind in ("checks", "rows") for entry in new[kind]}
    kept = []
    for one in document["measurements"]:
        left = {kind: [entry for entry in one[kind] if entry["part"] not in covered] for kind in ("checks", "rows")}
        if left["checks"] or left["rows"]:
            kept.append(dict(one, **left))
    return dict(document, measurements=kept + [new])


def text_of(document):
    """JSON with one check or row a line, so that a diff of the file shows rows."""
    def entry_lines(entries):
        return "[%s]" % ("\n" + ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n" if entries else "")

    def one_measurement(one):
        fields = ['"%s": %s' % (key, entry_lines(value) if key in ("checks", "rows") else json.dumps(value, ensure_ascii=False))
                  for key, value in one.items()]
        return "{\n " + ",\n ".join(fields) + "}"

    head = json.dumps({key: value for key, value in document.items() if key != "measurements"}, ensure_ascii=False)
    return head[:-1] + ', "measurements": [\n%s\n]}\n' % ",\n".join(map(one_measurement, document["measurements"]))


def write(name, new):
    os.makedirs(FOLDER, exist_ok=True)
    replace_file(path_of(name), text_of(merge(load(name), new)))
