"""docs/architecture.md names files that exist, and every room of the package."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_path_exists():
    named = set(re.findall(r"`((?:[\w.]+/)+[\w.]*|\w+\.(?:py|toml))`", PAGE))
    assert len(named) > 80
    missing = [path for path in named if not ((ROOT / path).exists() or (ROOT / "megarc" / path).exists())]
    assert missing == []


def test_every_room_is_named():
    rooms = [folder for folder in (ROOT / "megarc").rglob("*") if (folder / "__init__.py").exists()]
    inner = [room for room in rooms if room.parent.name in ("megarc", "train")]
    assert [room.name for room in inner if f"{room.name}/" not in PAGE] == []
