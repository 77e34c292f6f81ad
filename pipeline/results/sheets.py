"""Puts pictures with captions together into one picture, for `mac inspect` and `mac explain`."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.results.visual import RGB

SIDE, GAP, CAPTION = 240, 8, 22  # pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def strip(panels: Mapping[str, RGB]) -> Image.Image:
    """Panels side by side, each scaled to 240 pixels, with its caption above it."""
    return grid(list(panels.items()), len(panels))


def grid(panels: Sequence[tuple[str, RGB]], columns: int, side: int = SIDE) -> Image.Image:
    """Panels row by row, each scaled to `side` pixels, with its caption above it. Long captions are cut."""
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, rows * (side + CAPTION) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (caption, panel) in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = GAP + column * (side + GAP), row * (side + CAPTION)
        draw.text((left, top + 4), shortened(caption, side, font), fill="black", font=font)
        scaled = Image.fromarray(panel).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(scaled, (left, top + CAPTION))
    return sheet


def shortened(text: str, width: int, font: Font) -> str:
    """The text, or as much of its beginning as fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
