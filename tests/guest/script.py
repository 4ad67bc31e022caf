# SPDX-License-Identifier: MIT
"""A guest's script: header lines, the guest's part, the host's part."""

import os
import re

HEADER = re.compile(r"^# ([a-z-]+): *(.*)$")
SPLIT = re.compile(r"^# --- host.*$", re.M)
KNOWN = ("tools", "modules", "module-options", "disk", "doors", "helpers",
         "files", "kernel", "memory", "cpus", "deadline", "allow", "append",
         "serve", "controllers", "faults", "image", "reboots")


class Script:
    def __init__(self, path):
        self.headers = {}
        self.path = path
        self.name = os.path.basename(path) if path else "the shell"
        text = ""
        if path:
            with open(path, encoding="utf-8") as f:
                text = f.read()
        for line in text.splitlines():
            m = HEADER.match(line)
            if m and m.group(1) in KNOWN:
                self.headers.setdefault(m.group(1), []).append(m.group(2))
            elif line and not line.startswith("#"):
                break
        parts = SPLIT.split(text, maxsplit=1)
        self.guest = parts[0]
        self.host = parts[1] if len(parts) > 1 else ""

    def lines(self, key):
        return self.headers.get(key, [])

    def words(self, key):
        return " ".join(self.lines(key)).split()

    def one(self, key, default):
        return self.lines(key)[-1] if self.lines(key) else default
