#!/usr/bin/env python3
"""Fails when a page of the book is missing from SUMMARY.md, or a link inside the docs leads nowhere."""
import pathlib
import re
import sys

docs = pathlib.Path(__file__).parent
source = docs
wrong = []

summary = (source / "SUMMARY.md").read_text(encoding="utf-8")
listed = set(re.findall(r"\]\(([^)#]+\.md)\)", summary))
for page in sorted(page for page in source.rglob("*.md") if docs / "book" not in page.parents):
    name = page.relative_to(source).as_posix()
    if name != "SUMMARY.md" and name not in listed:
        wrong.append(f"{name} is not in SUMMARY.md")

pages = [*source.rglob("*.md"), docs.parent / "README.md", docs.parent / "CHANGELOG.md"]
for page in pages:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = target.split("#")[0]
        if not path or "://" in path or path.startswith("mailto:"):
            continue
        if not (page.parent / path).exists():
            wrong.append(f"{page.relative_to(docs.parent)} links to {path}, which does not exist")

print("\n".join(wrong) if wrong else f"{len(listed)} pages, all linked")
sys.exit(bool(wrong))
