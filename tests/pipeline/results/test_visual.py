import numpy as np

from pipeline.results import visual


def test_colours_span_the_map() -> None:
    scores = np.array([[0.0, 1.0], [0.5, -1.0]])
    picture = visual.heat(scores)
    assert picture[1, 1].tolist() == [0, 0, 4]
    assert picture[0, 1].tolist() == [252, 255, 164]
    assert (visual.heat(np.ones((2, 2))) == (0, 0, 4)).all()


def test_maps_over_an_image_have_one_scale() -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    low, high = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 1.0]])
    one, other = visual.heat_over(image, [low, high])
    assert one[1, 1].tolist() == other[1, 1].tolist()
    assert one[0, 0].tolist() == [100, 100, 102]
    assert other[0, 0].tolist() == [226, 228, 182]
    (alone,) = visual.heat_over(image, [high])  # the scale starts at 0 where no value is below it
    assert np.array_equal(alone, other)


def test_the_outline_surrounds_the_core() -> None:
    image = np.full((5, 5, 3), 200, np.uint8)
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    shown = visual.overlay(image, mask)
    assert shown[2, 2].tolist() == [200, 200, 200]
    assert shown[1, 1].tolist() == [255, 220, 0]
    assert shown[0, 0].tolist() == [100, 100, 100]


def test_pixels_to_bytes() -> None:
    pixels = np.array([0.0, 0.5, 1.0, 1.2]).reshape(1, 2, 2).repeat(3, 0)
    assert visual.to_rgb(pixels)[..., 0].tolist() == [[0, 128], [255, 255]]
