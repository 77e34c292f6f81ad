"""What computes: the device, blocks of rows here and on a cluster, processes that train together, progress."""
