#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Say in lines what a browser made of the page.

usage: tests/page/dom.py <DOM

  title TEXT
  banner hidden | banner TEXT
  tag NAME                  each kind of element, once
  handler NAME              each attribute on*, once
  box KIND: TEXT | TEXT     the texts of each box
  section ID: TEXT | TEXT   ... of each table
  lines N                   between boxes
"""

import html.parser
import sys

VOID = {"meta", "link", "br", "img", "input", "hr", "area", "base", "col",
        "embed", "source", "track", "wbr"}


class Dom(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [] # [tag, what its text belongs to]
        self.found = [] # [head, texts]
        self.tags, self.handlers, self.lines = set(), set(), 0

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        classes = (a.get("class") or "").split()
        what = self.open[-1][1] if self.open else None
        self.tags.add(tag)
        self.handlers.update(k for k in a if k.startswith("on"))
        self.lines += "edge" in classes
        if tag == "title":
            what = self.start("title")
        elif "box" in classes:
            what = self.start(f"box {classes[-1]}:")
        elif a.get("id") == "banner":
            what = self.start("banner hidden" if "hidden" in a else "banner")
        elif tag == "section":
            what = self.start(f"section {a.get('id')}:")
        elif tag in ("script", "style"):
            what = None
        if tag not in VOID:
            self.open.append([tag, what])

    def start(self, head):
        self.found.append([head, []])
        return self.found[-1]

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1][1] and data.strip():
            self.open[-1][1][1].append(data.strip())


def main():
    dom = Dom()
    dom.feed(sys.stdin.read())
    for head, texts in dom.found:
        print(head, " | ".join(texts))
    for tag in sorted(dom.tags):
        print("tag", tag)
    for name in sorted(dom.handlers):
        print("handler", name)
    print("lines", dom.lines)


if __name__ == "__main__":
    main()
