"""The page: complete, self-contained, escaped, and alive in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.report import figures, verdict
from pipeline.report.gallery import OUTCOMES
from tests.conftest import STAGES, Project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page is not opened")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._in):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(finished: Project) -> Page:
    return Page((finished.data / "report.html").read_text())


def test_the_verdict_and_the_tables_are_the_metrics(finished: Project, page: Page) -> None:
    metrics = json.loads((finished.data / "metrics.json").read_text())
    text = " ".join(page.text.split())
    for value in (
        metrics["erm"]["test"]["worst_group"],
        metrics["mac"]["test"]["worst_group"]["mean"],
        metrics["mac"]["test"]["auroc"]["mean"],
    ):
        assert f"{100 * value:.1f}" in text
    methods = json.loads((finished.data / "baselines.json").read_text())["methods"]
    for method in methods.values():
        assert method["title"] in text
        assert f"{method['sign']} {method['labels']}" in text
        assert f"{100 * method['test']['raw_mean']['mean']:.1f}" in text
    picked = json.loads((finished.data / "sweep/picked.json").read_text())
    assert f"Validation picks α = {picked['alpha']:g}, β = {picked['beta']:g}." in text
    assert "Mask/FG, %" in text
    for word in ("stored_size", "top_k", "torchvision", "saliency"):
        assert word in text


def test_nothing_is_fetched_and_every_picture_says_what_it_shows(finished: Project, page: Page) -> None:
    text = (finished.data / "report.html").read_text()
    assert len(text) < 5_000_000
    assert not re.search(r"""(src|href|action|url)\s*[=(]\s*["']?\s*(https?:)?//""", text)
    for image in page.all("img"):
        assert (image["src"] or "").startswith("data:image/")
        assert image["alt"]
    cards = page.all("article")
    assert {card["data-split"] for card in cards} == {"train", "test"}
    assert {card["data-outcome"] for card in cards} <= set(OUTCOMES)
    assert all(card["data-outcome"] in ("mended", "both wrong") for card in cards if card["data-split"] == "test")


def test_artefacts_that_do_not_belong_together_are_refused(project: Project) -> None:
    before = (project.data / "report.html").read_text()
    found = json.loads((project.data / "baselines.json").read_text())
    (project.data / "baselines.json").write_text(json.dumps(found | {"made_from": {"features": "0"}}))
    assert "baselines.json: was made from other features than those here; run 'mac baselines' again" in project.fail("report")
    (project.data / "baselines.json").unlink()
    assert "baselines.json: cannot be read (No such file or directory); run 'mac baselines'" in project.fail("report")
    assert (project.data / "report.html").read_text() == before


def test_it_says_so_when_retraining_does_harm() -> None:
    def metrics(before: float, after: float) -> dict[str, Any]:
        def interval(x: float) -> dict[str, float]:
            return {"low": x - 0.05, "high": x + 0.05}

        erm = {"worst_group": before, "raw_mean": 0.9, "worst_group_interval": interval(before)}
        mac = {"worst_group": {"mean": after, "std": 0.0}, "raw_mean": {"mean": 0.8, "std": 0.0}, "worst_group_interval": interval(after)}
        return {"erm": {"test": erm}, "mac": {"test": mac}}

    assert verdict(metrics(0.5, 0.8)) == {
        "worst": "worst group", "gain": pytest.approx(0.3), "mean_gain": pytest.approx(-0.1), "apart": True
    }  # fmt: skip
    assert verdict(metrics(0.6, 0.55))["gain"] < 0
    assert not verdict(metrics(0.6, 0.55))["apart"]


NASTY = ("<script>alert(1)</script>", "\"quoted\" & 'single'", "鳥 $x_1$ été")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory, finished: Project) -> Project:
    """A dataset whose classes and files have the names that break pages."""
    project = Project(tmp_path_factory.mktemp("nasty"))
    shutil.copy(finished.params_file, project.params_file)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for number, name in enumerate(NASTY):
            folder = project.folder / "raw" / split / name.replace("/", "⁄")
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80 + 60 * number, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"<img src=x onerror=alert({i})>.png")
    project.set(
        dataset__name="folder", dataset__root=str(project.folder / "raw"), dataset__options={"metadata": None}, dataset__stored_size=64,
        baselines__methods=["erm", "llr"], train__epochs=1,
    )  # fmt: skip
    for stage in STAGES:
        project.succeed(stage)
    return project


def test_names_of_files_and_classes_are_escaped(nasty: Project) -> None:
    text = (nasty.data / "report.html").read_text()
    page = Page(text)
    assert len(page.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "<img src=x" not in text
    for name in (NASTY[0].replace("/", "⁄"), *NASTY[1:]):
        assert html.escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
        assert name in page.text
    assert "worst class" in page.text


def test_figures_take_any_name() -> None:
    picture = figures.group_bars(["$\\frac{", "<b>", "鳥"], [0.5, 0.5, 0.5], [{"mean": 0.6, "std": 0.1}] * 3)
    assert picture.uri == figures.group_bars(["$\\frac{", "<b>", "鳥"], [0.5, 0.5, 0.5], [{"mean": 0.6, "std": 0.1}] * 3).uri
    assert "鳥: ERM 50.0, MaC 60.0" in picture.alt


SCRIPT = """
<script>
const result = {};
const visible = () => cards.filter((card) => !card.hidden);
const choose = (id, value) => { const s = document.getElementById(id); s.value = value; s.dispatchEvent(new Event("change")); };
result.all = visible().length;
choose("split", "test");
result.test = visible().length;
choose("split", ""); choose("group", cards[0].dataset.group);
result.group = visible().every((card) => card.dataset.group === cards[0].dataset.group) && visible().length;
choose("outcome", cards[0].dataset.outcome);
result.both = visible().every((card) => card.dataset.outcome === cards[0].dataset.outcome) && visible().length;
result.said = document.getElementById("shown").textContent;
choose("group", ""); choose("outcome", "");
const one = document.querySelector("img[data-toggles]"), over = one.src;
toggle.focus(); result.focused = document.activeElement === toggle;
toggle.click();
result.plain = one.src !== over && one.src === one.closest(".panels").querySelector("img").src && toggle.getAttribute("aria-pressed");
toggle.click();
result.over = one.src === over && toggle.getAttribute("aria-pressed");
result.width = [document.documentElement.scrollWidth, window.innerWidth];
result.controls = [...document.querySelectorAll("select, button")].every((e) => e.tabIndex === 0);
console.log("RESULT " + JSON.stringify(result) + " END");
</script>
"""


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["finished", "nasty"])
def test_it_works_in_a_browser(which: str, width: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project: Project = request.getfixturevalue(which)
    text = (project.data / "report.html").read_text()
    (tmp_path / "report.html").write_text(text.replace("</body>", SCRIPT + "</body>"))
    # In a frame, for a window cannot be as narrow as a phone.
    (tmp_path / "frame.html").write_text(f'<iframe src="report.html" width="{width}" height="800" style="border: 0"></iframe>')
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1400,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1, said  # the result: neither errors nor refusals of the page's own content security policy
    found = re.search(r"RESULT (.*) END", said[0])
    assert found, done.stderr[-2000:]
    result = json.loads(found[1])
    cards = Page(text).all("article")
    first = cards[0]
    of_group = [card for card in cards if card["data-group"] == first["data-group"]]
    both = [card for card in of_group if card["data-outcome"] == first["data-outcome"]]
    assert result["all"] == len(cards)
    assert result["test"] == sum(card["data-split"] == "test" for card in cards)
    assert result["group"] == len(of_group)
    assert result["both"] == len(both)
    assert result["said"] == f"{len(both)} image" + ("s" if len(both) > 1 else "")
    assert (result["plain"], result["over"], result["focused"], result["controls"]) == ("false", "true", True, True)
    scroll, window = result["width"]
    assert window == width
    assert scroll <= window  # nothing sticks out on a phone
