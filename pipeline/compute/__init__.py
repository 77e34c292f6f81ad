"""Where and how work is done: devices, blocks of rows, clusters, processes that train together, progress."""
