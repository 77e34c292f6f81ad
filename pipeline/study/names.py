"""Names of methods in the study, besides those of stage baselines."""

ERM, MAC = "erm", "mac"
# MaC with each of the masks of `comparison.ablation.compare`; α and β of all are picked in the same way.
MASKS = {
    "own": "masks_own",
    "random": "masks_random",
    "own_known": "masks_own_known",
    "true": "masks_true",
}
