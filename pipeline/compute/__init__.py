"""How work is computed: devices, blocks of rows, clusters, processes that train together, progress."""
