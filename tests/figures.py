"""Figures of the diagnosis that were measured: what its bounds and words are tested with."""

from pipeline.results.judgement import Figures

WATERBIRDS = Figures(2, 100, 0.968, 0.952, 0.765, 0.839, 0.161, 0.0)
BAR = Figures(6, 20, 0.962, 0.770, 0.811, 0.550, 0.354, 0.0)
