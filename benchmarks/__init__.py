"""Programs that measure, one for each question: `python -m benchmarks.retrain --help`.

`make bench` runs all of them and writes RESULTS.md.
"""
