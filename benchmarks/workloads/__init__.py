"""One file a workload; each has one function, `run(bench)`, that adds what it measured to the results."""
