"""Names of methods in the study, besides those of stage baselines."""

ERM, MAC = "erm", "mac"
# MaC with each of the masks of `comparison.ablation.compare`: name and title.
MASKS = {
    "own": ("masks_own", "MaC's masks"),
    "random": ("masks_random", "random masks"),
    "own_known": ("masks_own_known", "MaC's masks, where true ones are known"),
    "true": ("masks_true", "true masks"),
}
OF_MASKS = dict(MASKS.values())
# Besides MaC and each other method, what is compared with what.
PAIRS_OF_MASKS = (
    ("masks_own", "masks_random"),
    ("masks_true", "masks_own_known"),
    ("masks_true", "masks_own"),
)
