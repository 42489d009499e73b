"""The commands of a documentation page."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def sections(page):
    """``(heading, script)`` of each part of a page that has ```` ```bash ```` blocks, in order."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        script = "".join(re.findall(r"^```bash\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
        if script:
            yield heading, script
