"""Programs that measure, one a question: `python -m benchmarks.retrain --help`. `make bench` runs all and writes RESULTS.md."""
