import torch

from pipeline.method.interventions import combined, masked, rest


def test_both_equations_against_a_loop_over_pixels(sample) -> None:  # type: ignore[no-untyped-def]
    x_i, x_j, b = sample(2, 3, 5, 4), sample(2, 3, 5, 4), sample(2, 3, 1, 1)
    m_i, m_j = (sample(2, 1, 5, 4) > 0.5).float(), (sample(2, 1, 5, 4) > 0.5).float()
    one, two = masked(x_i, m_i, b), combined(x_i, m_i, x_j, m_j, b)
    without = rest(x_i, m_i, b)
    for n in range(2):
        for row in range(5):
            for column in range(4):
                for c in range(3):
                    i, j, fill = x_i[n, c, row, column], x_j[n, c, row, column], b[n, c, 0, 0]
                    mi, mj = float(m_i[n, 0, row, column]), float(m_j[n, 0, row, column])
                    assert torch.isclose(one[n, c, row, column], mi * i + (1 - mi) * fill)
                    assert torch.isclose(without[n, c, row, column], (1 - mi) * i + mi * fill)
                    assert torch.isclose(
                        two[n, c, row, column], mi * i + (1 - mi) * (1 - mj) * j + (1 - mi) * mj * fill
                    )
