"""Checking a store by what its clients saw: histories, and an oracle that knows nothing of trikv's code.

    linearizability   whether a history of one key can be that of a register
    history           what clients asked and were told: `Call`, `History`, and their JSON
    verdict           what is wrong with a history: `judge`

The simulation in `tests/simulation` and `python -m loadgen --check` use the same three modules. The
others are the way of a check on real nodes:

    command      the files that it writes, and what the terminal says
    run          its phases, from an empty cluster to a verdict
    plan         its options, and what it must reach                            (pure)
    clients      what is asked, of whom
    recorder     each request and its answer, as a `Call`
    nemesis      what is done to the nodes, and how it is put right
    situation    to whom it may be done next                                    (pure)
    system       what a nemesis needs of a cluster
    processes    a `System` of processes
    containers   a `System` of containers
    result       figures, and whether they are worth anything                   (pure)
    report       check.md, in words
    windows      what is worth a closer look                                    (pure)
    picture      history.png
"""
