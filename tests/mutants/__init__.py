"""Guards broken on purpose, one by one: what notices? See `mutants` for the list.

    python -m tests.mutants            all of them; the table
    python -m tests.mutants NAME ...   these

Each mutant is a copy of one module with one text replaced, made when the module is imported, in a
process of its own; no file is changed. First the random walks of tests/simulation run, from seed 0 on,
until one fails, at most as many as in a CI run: that is the general simulation with its oracle, which
knows of no mutant. Where it is known not to notice, a few walks will do, and then the test runs that was
written for that guard. A mutant that nobody notices fails the run.
"""
