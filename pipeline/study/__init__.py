"""The study: everything from ERM on, run with many seeds, and the methods compared over the runs."""
