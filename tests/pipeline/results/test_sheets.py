import numpy as np
from PIL import ImageFont

from pipeline.results import sheets


def test_panels_go_row_by_row() -> None:
    panels = [(f"panel {number}", np.full((4, 4, 3), 50 * number, np.uint8)) for number in range(5)]
    sheet = np.asarray(sheets.grid(panels, 2, 40))
    assert sheet.shape == (3 * (40 + 22) + 8, 2 * (40 + 8) + 8, 3)
    for number in range(5):
        top, left = 22 + number // 2 * 62, 8 + number % 2 * 48
        assert (sheet[top : top + 40, left : left + 40] == 50 * number).all()
    assert (sheet[22 + 2 * 62 :, 8 + 48 :] == 255).all()


def test_a_caption_is_cut_where_it_is_too_long() -> None:
    font = ImageFont.load_default(14)
    assert sheets.shortened("short", 100, font) == "short"
    cut = sheets.shortened("a caption that is far too long", 100, font)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 100
