"""Checks alerts.yaml and dashboard.json against a /metrics page: `check.py PAGE RULES`.

Every metric that they name is on the page, and every label that they ask for is one of a sample's. Writes the dashboard's queries as rules into RULES, for `promtool check rules`.
"""

import json
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).parent
# Labels that Prometheus adds when it scrapes.
TARGET_LABELS = {"instance", "job"}


def of_page(text):
    """The names of a page's metrics, and the labels of each one's samples."""
    labels = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        suffixes = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        labels.update({name + suffix: set() for suffix in suffixes})
    for name, given in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        labels[name].update(re.findall(r'(\w+)="', given))
    return labels


def queries_of_rules():
    return re.findall(r"^ +expr: (.*)$", (FOLDER / "alerts.yaml").read_text(), re.MULTILINE)


def queries_of_dashboard(problems):
    """The queries, with a duration and all values in place of Grafana's variables."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        problems.append("dashboard.json: two panels have the same id")
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    queries = []
    for panel in dashboard["panels"]:
        targets = panel.get("targets", [])
        for part in [panel, *targets] if targets else []:
            if part["datasource"]["uid"] != "${datasource}":
                problems.append(f"dashboard.json, {panel['title']}: not of the chosen data source")
        queries += [target["expr"] for target in targets]
    queries += [f"count by ({name}) ({metric})" for metric, name in re.findall(r'"definition": "label_values\((\w+), (\w+)\)"', json.dumps(dashboard))]
    for query in queries:
        problems += [f"dashboard.json has no variable {name}: {query}" for name in re.findall(r"\$(\w+)", query) if name != "__rate_interval" and name not in variables]
    return [re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m")) for query in queries]


def check(query, labels):
    """What is wrong with the names in a query."""
    bare = re.sub(r'"[^"]*"', '""', query)
    named = set(re.findall(r"\bdrover_\w+", bare))
    problems = [f"no metric {name}: {query}" for name in sorted(named - labels.keys())]
    known = TARGET_LABELS.union(*(labels.get(name, set()) for name in named))
    asked = {label for matchers in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)\s*[=!]", matchers)}
    for grouping in re.findall(r"\bby \(([^)]*)\)", bare):
        asked |= {label.strip() for label in grouping.split(",")}
    return problems + [f"no label {label}: {query}" for label in sorted(asked - known)]


def main(page, rules):
    labels = of_page(pathlib.Path(page).read_text())
    problems = []
    dashboard = queries_of_dashboard(problems)
    queries = queries_of_rules() + dashboard
    for query in queries:
        problems += check(query, labels)
    recorded = [{"record": f"dashboard:{number}", "expr": query} for number, query in enumerate(dashboard)]
    # JSON is YAML.
    pathlib.Path(rules).write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    named = set(re.findall(r"\bdrover_\w+", " ".join(queries)))
    unused = sorted(name for name in labels if name.startswith("drover_") and name not in named)
    problems += [f"nothing shows {name}" for name in unused]
    if problems:
        sys.exit("\n".join(problems))
    print(f"monitoring: {len(queries)} queries name {len(named)} metrics, all of which are there")


main(*sys.argv[1:])
