"""ERM's own head, unchanged: what the other methods are compared with."""

from pipeline.last_layer.method import Cached, Fitted, Method


def fit(cached: Cached) -> Fitted:
    """The head as it was trained.

    The group labels that it saw are those that chose its epoch: `Opened.erm_labels`.
    """
    return Fitted(cached.erm, {}, labels=cached.erm_labels)


METHOD = Method("ERM", "the head as trained", "none", fit)
