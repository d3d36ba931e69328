"""docs/protect.md: what it says of the environ. Its files and commands are run by tests/unit/docs."""

from __future__ import annotations

import re

from harness import ROOT

PAGE = (ROOT / "docs" / "protect.md").read_text()
SECTIONS = {m[1]: m[2] for m in re.finditer(r"^## (?:\d+\. )?(.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)}


def test_what_the_page_says_of_the_application_is_what_it_can_read() -> None:
    names = re.findall(r"^\| `(weir\.\w+)` \|", SECTIONS["What the application is told"], re.M)
    source = (ROOT / "src" / "wsgi" / "environ.c").read_text()
    assert names == ["weir.user", "weir.user_by", "weir.tier", "weir.claims"]
    assert all(f'W_KEY({name.replace(".", "_")})' in source for name in names)
