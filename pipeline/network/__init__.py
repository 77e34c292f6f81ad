"""The network: its contract, how it is built and loaded, fed from images.h5, and trained."""
