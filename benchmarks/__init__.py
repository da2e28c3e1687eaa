"""How fast jobd is, and what a job costs. `python -m benchmarks --help`."""
