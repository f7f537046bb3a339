# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference from the code, so that the pages cannot say anything else.

python tools/gen_docs.py            rewrite
python tools/gen_docs.py --check    1 when a page is stale, and which
"""

from __future__ import annotations

import sys
from pathlib import Path

from reference import (
    api_page,
    cli_page,
    config_page,
    exits_page,
    fields_page,
    reasons_page,
    text,
)

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/reference"
PAGES = {
    "config.md": (config_page.write, "the configuration file, key by key"),
    "cli.md": (cli_page.write, "every command and its options"),
    "reasons.md": (reasons_page.write, "why packets are forwarded, passed or dropped"),
    "fields.md": (fields_page.write, "what the fields and counters of tables and JSON mean"),
    "api.md": (api_page.write, "the control socket: routes and answers"),
    "exit-codes.md": (exits_page.write, "how commands end"),
}
INTRODUCTION = "Written from the code, and checked against it by every `make lint`."


def pages() -> dict[Path, str]:
    """Every page's text."""
    rows = [[f"[{name}]({name})", what] for name, (_, what) in PAGES.items()]
    index = text.page("Reference", INTRODUCTION, text.table(["page", ""], rows))
    written = {FOLDER / name: write() for name, (write, _) in PAGES.items()}
    return {FOLDER / "README.md": index, **written}


def main() -> int:
    wanted = pages()
    stale = [p for p, content in wanted.items() if not p.exists() or p.read_text() != content]
    stray = sorted(set(FOLDER.glob("*.md")) - wanted.keys())
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run make generate")
        for path in stray:
            print(f"{path.relative_to(ROOT)} is not written by anything: remove it")
        return 1 if stale or stray else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(wanted[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
