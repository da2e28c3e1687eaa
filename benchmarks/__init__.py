"""How fast jobd is beside other job systems and beside PostgreSQL itself, and what a job costs.

`uv run --group bench python -m benchmarks --help`; docs/benchmarks.md says what is measured, and how.
"""
