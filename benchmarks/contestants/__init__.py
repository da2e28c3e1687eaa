"""Programs that run one job system each; program.py says how, contestant.py runs them."""
