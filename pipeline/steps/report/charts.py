"""Charts as SVG: axes, bars, lines and dots, in the colours of the page that they stand in.

Libraries of charts write colours of their own, which do not follow the page into the dark, and take longer
than all the rest of the report. Shapes have classes; `RULES` gives these their colours. ElementTree escapes
all text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from pipeline.errors import printable

ERM, MAC = "erm", "mac"
SERIES = tuple(f"s{number}" for number in range(10))

# Name: in the light and in the dark.
COLOURS = {
    "ink": ("#1c1c1e", "#ececec"),
    "paper": ("#fdfdfc", "#17181a"),
    "line": ("#d9d9d4", "#3a3c40"),
    "soft": ("#f1f1ec", "#222428"),
    "dim": ("#5c5c60", "#a9abb0"),
    "accent": ("#1f6f8b", "#6fc0dc"),
    "good": ("#1c7c3c", "#6fcf8b"),
    "bad": ("#aa3333", "#ff8f8f"),
    ERM: ("#8a6d3b", "#d0ac6c"),
    MAC: ("#1f6f8b", "#6fc0dc"),
    "s0": ("#c2570c", "#fb923c"),
    "s1": ("#15803d", "#4ade80"),
    "s2": ("#b91c1c", "#f87171"),
    "s3": ("#7c3aed", "#a78bfa"),
    "s4": ("#a21caf", "#e879f9"),
    "s5": ("#be185d", "#f472b6"),
    "s6": ("#475569", "#94a3b8"),
    "s7": ("#27272a", "#e4e4e7"),
    "s8": ("#4d7c0f", "#a3e635"),
    "s9": ("#1d4ed8", "#60a5fa"),
}
RULES = """\
.drawing { color: var(--ink); font: 12px system-ui, sans-serif; }
.drawing text { fill: currentColor; stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
.drawing .small { fill: var(--dim); }
.drawing .strong { font-weight: 600; }
.drawing .end { text-anchor: end; } .drawing .middle { text-anchor: middle; }
.drawing .grid { stroke: var(--line); } .drawing .zero { stroke: var(--dim); }
.drawing .bar, .drawing .dot { fill: currentColor; } .drawing .faint { fill: currentColor; opacity: 0.14; }
.drawing .seen-through { fill: currentColor; opacity: 0.6; }
.drawing .stroke { fill: none; stroke: currentColor; stroke-width: 1.5; }
.drawing .stroke.thick { stroke-width: 3; }
.drawing .dashed { stroke-dasharray: 5 3; } .drawing .whisker { stroke: var(--ink); stroke-width: 1.5; }
"""
RULES += "".join(f".{name} {{ color: var(--{name}); }}\n" for name in (ERM, MAC, *SERIES))


def variables(*, dark: bool) -> str:
    """The colours as CSS variables."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())


@dataclass(frozen=True)
class Drawing:
    """A figure for the page.

    Attributes:
        svg: the markup, with `alt` in it.
        alt: what it shows, in words.
        legend: the label and the colour of each series.
    """

    svg: str
    alt: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Scale:
    """From values (low to high) to pixels (start to end)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low or 1)

    def ticks(self, most: int = 6, step: float = 0) -> list[float]:
        """At most so many round numbers (1, 2 or 5 times a power of 10), but none closer than `step`."""
        space = max((self.high - self.low) / (most - 1), step, 1e-9)
        power = 10.0 ** math.floor(math.log10(space) + 1e-9)
        width = next(power * times for times in (1, 2, 5, 10) if power * times >= space * (1 - 1e-9))
        first, last = math.ceil(self.low / width - 1e-9), math.floor(self.high / width + 1e-9)
        return [number * width for number in range(first, last + 1)]


class Chart:
    """A chart that is drawn from top to bottom, in pixels."""

    def __init__(self, width: float, height: float, alt: str) -> None:
        self.width, self.height, self.alt = width, height, alt
        about = {"class": "drawing", "role": "img", "aria-label": alt, "viewBox": f"0 0 {width:g} {height:g}"}
        self.root = Element("svg", about)

    def add(self, tag: str, classes: str, text: str = "", **numbers: float | str) -> None:
        """A shape; its attributes, with - for _, with one digit after the point."""
        found = {"class": classes}
        for name, value in numbers.items():
            found[name.replace("_", "-")] = value if isinstance(value, str) else _short(value)
        SubElement(self.root, tag, found).text = text or None

    def text(self, x: float, y: float, text: str, classes: str = "small") -> None:
        """A line of text on the base line y."""
        self.add("text", classes, text, x=x, y=y)

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """A straight line."""
        self.add("line", classes, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, points: Sequence[tuple[float, float]], classes: str) -> None:
        """A line through the points, or the area that they enclose."""
        steps = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
        self.add("path", classes, d=f"M{steps}")

    def dot(self, x: float, y: float, radius: float, classes: str) -> None:
        """A filled circle."""
        self.add("circle", classes, cx=x, cy=y, r=radius)

    def bar(self, x1: float, x2: float, y: float, height: float, classes: str) -> None:
        """A filled rectangle."""
        self.add("rect", classes, x=x1, y=y, width=max(x2 - x1, 0), height=height, rx=1.5)

    def x_axis(self, x: Scale, top: float, bottom: float, label: str, step: float = 0) -> None:
        """Vertical lines at round values, and the label below them."""
        for tick in x.ticks(step=step):
            self.line(x(tick), top, x(tick), bottom, "grid")
            self.text(x(tick), bottom + 15, _number(tick), "small middle")
        self.text((x.start + x.end) / 2, bottom + 33, label, "small middle")

    def y_axis(self, y: Scale, left: float, right: float, label: str) -> None:
        """Horizontal lines at round values, and the label above them."""
        for tick in y.ticks():
            self.line(left, y(tick), right, y(tick), "grid")
            self.text(left - 6, y(tick) + 4, _number(tick), "small end")
        self.text(0, 11, label)

    def drawn(self, legend: Sequence[tuple[str, str]] = ()) -> Drawing:
        """The figure, for the page."""
        self.root.set("style", f"max-width: {1.35 * self.width:g}px")
        return Drawing(self._markup(), self.alt, legend)

    def alone(self) -> str:
        """The figure as a file of its own, on white paper. Not all programs know CSS variables."""
        self.root.set("xmlns", "http://www.w3.org/2000/svg")
        self.root.attrib |= {"width": _short(self.width), "height": _short(self.height)}
        rules = re.sub(r"var\(--(\w+)\)", lambda found: COLOURS[found[1]][0], RULES)
        style = Element("style")
        style.text = rules
        paper = Element("rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
        self.root[:0] = [style, paper]
        return self._markup() + "\n"

    def _markup(self) -> str:
        # XML cannot hold terminal codes.
        return printable(tostring(self.root, encoding="unicode"), kept="\n\t")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")
