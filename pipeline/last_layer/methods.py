"""The registry of last-layer methods. Its names are those of `pipeline.params.baselines.MethodName`."""

from pipeline.last_layer import afr, class_scaling, dfr, erm, evals, group_dro, llr, self
from pipeline.last_layer.method import Method

METHODS: dict[str, Method] = {
    "erm": erm.METHOD,
    "llr": llr.METHOD,
    "cb_llr": llr.BALANCED,
    "llr_groups": llr.GROUPS,
    "class_scaling": class_scaling.METHOD,
    "evals": evals.METHOD,
    "afr": afr.METHOD,
    "self": self.METHOD,
    "dfr": dfr.METHOD,
    "dfr_l2": dfr.L2,
    "dfr_train": dfr.TRAINING_GROUPS,
    "group_dro": group_dro.METHOD,
}
