"""The backbone: built and loaded, fed from images.h5, trained by SGD."""
