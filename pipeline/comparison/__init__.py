"""The stages of the second pipeline: comparisons that train a network or make masks again."""
