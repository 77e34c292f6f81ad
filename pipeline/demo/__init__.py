"""The demo dataset: procedural birds over procedural scenes, and the pretraining of the backbone that it starts from.

silhouettes -> scenes -> painting (one image) -> waterbirds_layout (the dataset on disk); pretrain makes the weights.
"""
