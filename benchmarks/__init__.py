"""trikv beside its peers, and beside itself as it grows: `python -m benchmarks`.

    (nothing)   compare   trikv, the original lab's design, etcd and Redis: the same load, in turn
    growth      what bends in trikv alone: clients, followers, keys, values, start-up, catching up
    report      docs/performance.md and its plots, made from the files in benchmarks/results

How a figure comes about. Six nodes of one system are started on loopback in a temporary directory
(`fleet`, `systems`); all requests of a workload are made beforehand (`workloads`); a load program
that is not written in Python, wrk, sends them from one connection per client (`wrk`; Redis does not
speak HTTP and has a small driver of its own, `resp`); what the six processes used of the CPU is read
before and after (`fleet`). Then the next workload, then the next system, in another order each round
(`compare`). Ratios are taken within a round, so that what disturbs a round disturbs both sides, and
their median is what counts (`figures`).

Nothing here is a test: no figure makes anything pass or fail. What is wrong (an answer that is no
200, replicas that differ afterwards) is kept with the figures and shown with them.
"""
