"""The model: what a write, a cluster and a node are. Pure: no clock, no randomness, no I/O, no trio.

A *record* is one key's value with its *version*, which belongs to one write; of two records of a
key the greater version wins. An *epoch* is one leadership, the first part of a version. The
*members* of a cluster are a leader and its followers; a write is confirmed once the *write quorum*
of followers have it.

    version      versions, epochs, and the clock that issues them
    record       records, the merge rule, which keys there may be
    operation    what a client asks for: put or delete, with or without a condition
    quorum       the arithmetic of quorums, and the count of one write's acknowledgements
    membership   who the members are and what the write quorum is, as a record of the store
    node_state   what a node knows of itself, on its disk beside its records
    progress     how far a follower is: what is on its way to it, and the watermark that follows from it
"""
