"""The demo dataset, painted birds over painted scenes; and the weights that the demo's backbone starts from.

Each module uses the ones before it: `silhouettes` and `scenes`, `painting` (one image), `waterbirds_layout`
(the dataset on disk). `pretrain` makes the weights.
"""
