"""Pictures side by side under their captions, as one picture: what `mac inspect` and `mac explain` write."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.results.visual import Picture

SIDE, GAP, CAPTION = 240, 8, 22  # pixels
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def strip(panels: dict[str, Picture]) -> Image.Image:
    """Panels in a row, each scaled to 240 pixels under its caption."""
    return grid(list(panels.items()), len(panels))


def grid(panels: Sequence[tuple[str, Picture]], columns: int, side: int = SIDE) -> Image.Image:
    """Panels row by row, each scaled to `side` pixels under its caption, which is cut where it is too long."""
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (side + GAP) + GAP, rows * (side + CAPTION) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (name, panel) in enumerate(panels):
        left, top = GAP + number % columns * (side + GAP), number // columns * (side + CAPTION)
        draw.text((left, top + 4), shortened(name, side, font), fill="black", font=font)
        sheet.paste(Image.fromarray(panel).resize((side, side), Image.Resampling.BICUBIC), (left, top + CAPTION))
    return sheet


def shortened(text: str, width: int, font: Font) -> str:
    """The text, or as much of its beginning as fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
