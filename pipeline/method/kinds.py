"""What kinds of methods `saliency.method` names."""

CONTROLS = ("random", "foreground")
AS_GIVEN = ("foreground", "external")  # their masks are taken as they are: no K, no side, no flip
LOOK_AWAY = ("random", *AS_GIVEN)  # their maps do not look at the network, so none of them is blank
