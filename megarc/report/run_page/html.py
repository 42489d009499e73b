"""One HTML page that needs nothing but itself: its content policy forbids scripts and everything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#333;max-width:1400px;margin:0 auto;padding:0 20px 60px}
h1{font-size:24px}h2{font-size:19px;margin:34px 0 6px;border-top:1px solid #ddd;padding-top:14px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:12px 26px}
figure{margin:0}figcaption{font-weight:600;margin:8px 0 2px}svg{width:100%;height:auto}
svg text{font-size:11px;fill:#333}
table{border-collapse:collapse;margin:8px 0;font-size:13px}td,th{border:1px solid #ddd;padding:3px 8px;text-align:left;
vertical-align:top;overflow-wrap:break-word}th{background:#f6f6f6;white-space:nowrap}pre{background:#f6f6f6;padding:10px;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:13px}
.legend{position:sticky;top:0;background:#fffe;padding:6px 0;display:flex;flex-wrap:wrap;gap:4px 18px}
.legend i{display:inline-block;width:22px;height:4px;margin-right:6px;vertical-align:middle}
.note{color:#666}.warn{background:#fff4d6;padding:6px 10px}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(slots=True)
class Page:
    """A page that grows by sections."""

    title: str
    legend: Sequence[tuple[str, str]]
    """Names and their colours."""
    _body: list[str] = field(default_factory=list)

    def section(self, title: str, note: str = "") -> None:
        self._body.append(f"<h2>{escape(title)}</h2>")
        if note:
            self.note(note)

    def note(self, words: str) -> None:
        self._body.append(f'<p class="note">{escape(words)}</p>')

    def warn(self, words: str) -> None:
        self._body.append(f'<p class="warn">{escape(words)}</p>')

    def charts(self, charts: Sequence[tuple[str, str]]) -> None:
        """Captions and their ``<svg>``; an empty one is left out."""
        drawn = [
            f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
            for caption, svg in charts
            if svg
        ]
        if drawn:
            self._body.append(f'<div class="charts">{"".join(drawn)}</div>')
        else:
            self.note("No line of the metrics has these numbers.")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        lines = [
            "".join(f"<td>{'-' if cell is None else escape(str(cell))}</td>" for cell in row) for row in rows
        ]
        self._body.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")

    def text(self, title: str, words: str) -> None:
        self._body.append(f"<h3>{escape(title)}</h3><pre>{escape(words)}</pre>")

    def html(self) -> str:
        """The whole page."""
        names = "".join(
            f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in self.legend
        )
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
            f"<style>{_STYLE}</style></head><body><h1>{escape(self.title)}</h1>"
            f'<div class="legend">{names}</div>{"".join(self._body)}</body></html>\n'
        )
