#!/usr/bin/env python3
"""Writes data/endpoints.json anew from a checkout of the Matrix specification.

    make.py /path/to/matrix-spec v1.19

Of the OpenAPI files it keeps what answers are held against: method, path, statuses, and the schemas of JSON answers.
Descriptions, examples and requests are left out. Shared schemas keep the name of their file.
"""
import collections
import glob
import json
import os
import sys

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
# What the validator understands; anything else in a schema ends the run here.
KEYWORDS = {
    "type", "properties", "required", "items", "additionalProperties", "patternProperties", "enum", "const", "allOf",
    "anyOf", "oneOf", "pattern", "format", "minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties",
}
# Words for readers, and one for code generators.
IGNORED = {
    "description", "title", "example", "examples", "default", "deprecated", "x-addedInMatrixVersion",
    "x-changedInMatrixVersion", "x-weight", "x-pattern-format", "externalDocs", "discriminator", "$schema", "$comment",
}
APIS = {"client-server": "client", "server-server": "federation"}
files, schemas, unknown, holders = {}, {}, collections.Counter(), set()


def load(path):
    if path not in files:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        files[path] = yaml.safe_load(text)
        holders.update(line.strip("# ") for line in text.splitlines() if line.startswith("# Copyright "))
    return files[path]


def follow(reference, base):
    """The node that a reference names, and the file in which it stands."""
    file, _, fragment = reference.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(base), file)) if file else base
    node = load(path)
    for part in filter(None, fragment.split("/")):
        part = part.replace("~1", "/").replace("~0", "~")
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node, path, fragment


def schema(node, base):
    """The schema with nothing but what is checked; references lead into `schemas`."""
    if isinstance(node, bool):
        return node
    out = {}
    for key, value in node.items():
        if key == "$ref":
            found, path, fragment = follow(value, base)
            name = os.path.relpath(path, ROOT).removesuffix(".yaml") + (f"#{fragment}" if fragment.strip("/") else "")
            if name not in schemas:
                schemas[name] = None
                schemas[name] = schema(found, path)
            out["$ref"] = name
        elif key in ("properties", "patternProperties"):
            out[key] = {name: schema(inner, base) for name, inner in value.items()}
        elif key in ("allOf", "anyOf", "oneOf"):
            out[key] = [schema(inner, base) for inner in value]
        elif key in ("items", "additionalProperties"):
            out[key] = schema(value, base)
        elif key in KEYWORDS:
            out[key] = value
        elif key not in IGNORED and not key.startswith("x-"):
            unknown[key] += 1
    return out


def endpoint(api, server, path, method, operation, base):
    answers = {}
    for status, answer in operation["responses"].items():
        where = base
        if "$ref" in answer:
            answer, where, _ = follow(answer["$ref"], base)
        content = answer.get("content") or {}
        body = content.get("application/json", {}).get("schema")
        # `null`: described, and not JSON (or nothing is said of it).
        answers[str(status)] = schema(body, where) if body is not None else None
    return {
        "api": api, "method": method.upper(), "path": (server + path).rstrip(), "name": operation["operationId"],
        "auth": authentication(operation), "answers": answers,
    }


def authentication(operation):
    """`none`, `token`, `optional` (better with a token) or `signed`."""
    security = operation.get("security") or []
    if any("signedRequest" in one for one in security):
        return "signed"
    if any("accessTokenBearer" in one or "appserviceAccessTokenBearer" in one for one in security):
        return "optional" if {} in security else "token"
    return "none"


def main():
    global ROOT
    checkout, version = sys.argv[1:3]
    ROOT = os.path.join(os.path.abspath(checkout), "data")
    endpoints = []
    for folder, api in APIS.items():
        for file in sorted(glob.glob(os.path.join(ROOT, "api", folder, "*.yaml"))):
            described = load(file)
            server = described["servers"][0]["variables"]["basePath"]["default"]
            for path, item in described["paths"].items():
                for method, operation in item.items():
                    if isinstance(operation, dict) and "operationId" in operation:
                        endpoints.append(endpoint(api, server, path, method, operation, file))
    if unknown:
        sys.exit(f"the validator does not know {dict(unknown)}")
    out = {
        "source": f"Matrix specification {version}, data/api of https://github.com/matrix-org/matrix-spec, reduced",
        "licence": "Apache-2.0; see LICENSE and NOTICE",
        "endpoints": endpoints,
        "schemas": dict(sorted(schemas.items())),
    }
    with open(os.path.join(HERE, "data", "endpoints.json"), "w", encoding="utf-8") as file:
        # One endpoint or schema in a line: small, and a change of the specification reads as a diff.
        file.write("{\n")
        for key in ("source", "licence"):
            file.write(f"{json.dumps(key)}: {json.dumps(out[key])},\n")
        rows = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in out["endpoints"]]
        file.write('"endpoints": [\n' + ",\n".join(rows) + "\n],\n")
        rows = [f"{json.dumps(name)}:{json.dumps(row, ensure_ascii=False, separators=(',', ':'))}"
                for name, row in out["schemas"].items()]
        file.write('"schemas": {\n' + ",\n".join(rows) + "\n}\n}\n")
    with open(os.path.join(HERE, "data", "NOTICE"), "w", encoding="utf-8") as file:
        file.write(f"{out['source']}.\nLicensed under the Apache License 2.0, see LICENSE.\n\n")
        file.write("".join(f"{holder}\n" for holder in sorted(holders)))
    print(f"{len(endpoints)} endpoints, {len(schemas)} shared schemas")


main()
