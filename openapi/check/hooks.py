"""What the generated requests must know beyond the OpenAPI document; each entry says why."""

import os

import schemathesis

# Texts with a grammar, a range or a meaning of their own, which a schema does not say. Legal requests leave them out or give this value; illegal ones are generated as for any other.
# A cursor is opaque and bound to the list that gave it.
QUERY_GRAMMARS = {"cursor", "kinds", "metric", "sort", "step", "window"}
BODY_GRAMMARS = {
    "filter": "info,drover::sink=debug",
    "index": "orders-{date}",
    "labels": {"team": "payments"},
    "partitions": [0, 3],
    "pipeline": "geo",
    "start": "earliest",
    "until_at": "2100-01-01T00:00:00Z",
}
# Preconditions of random tags fail, and then nothing behind them is reached. The examples of the document, which do not pass here, have some.
PRECONDITIONS = {"if-match", "if-none-match"}


def whole(value):
    """Numbers such as 3.0 are integers to JSON Schema; drover takes 3 only."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


def make_legal(case):
    for name in QUERY_GRAMMARS & set(case.query or {}):
        del case.query[name]
    for name in PRECONDITIONS & set(case.headers or {}):
        del case.headers[name]
    if isinstance(case.body, dict):
        case.body = whole(case.body)
        for name in BODY_GRAMMARS.keys() & case.body.keys():
            if case.body[name] is not None:
                case.body[name] = BODY_GRAMMARS[name]


@schemathesis.hook
def map_case(context, case):
    if case.meta is None:
        return case
    if case.meta.generation.mode.is_positive:
        make_legal(case)
    elif (case.query or {}).get("dry_run") in (True, "true"):
        # A dry run answers 200 and lists what is wrong with the request in `errors`.
        del case.query["dry_run"]
    return case


# Who asks, as `.ci/contract-requests.sh` says: `write`, `read` or `none`.
ROLE = os.environ.get("DROVER_CONTRACT_ROLE", "write")
# What needs no token: the document, and the probes where the configuration leaves them open.
PUBLIC = {"/openapi.json", "/livez", "/readyz", "/healthz"}


@schemathesis.check
def role_is_kept(context, response, case):
    """Without a token nothing but what is public answers; a reader changes nothing; whoever may write is never refused for that."""
    status = response.status_code
    is_public = case.operation.path in PUBLIC
    if ROLE == "none" and not is_public:
        assert status == 401, f"answered {status} without a token"
    elif ROLE == "read" and not is_public and case.method.upper() not in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert status == 403, f"answered {status} although the token may only read"
    else:
        assert status not in (401, 403), f"refused with {status} although the role {ROLE} may do this"
