"""The load generator: `python -m loadgen` runs the lab's experiment and writes its reports.

With `--check` it records what clients see of a cluster that is being hurt, and judges it: see
`loadgen.check`.

For each write quorum in turn it makes the writes, measures what a client waits for, looks at the
replicas twice (at the last answer, and once the background deliveries have settled), and says in
`summary.json`, a plot and a `report.md` what was found and why.

The way of a run through the modules:

    cli          exit codes; owns the root nursery and the signals
    options      the arguments, checked
    cluster      six `python -m trikv` processes on loopback, when no leader is given
    lending      the quorum and lag of a cluster that was found: taken, and given back
    experiment   the quorums in turn: set, write, look, settle, look again
    workload     which write goes to which key; the workers that make them
    parity       replicas compared with the leader
    theory       order statistics and percentiles                             (pure)
    results      what a run has found, in figures                             (pure)
    summary      summary.json and writes.csv
    plots        quorum_vs_latency.png
    report       report.md, in words; report_replicas is its part on the replicas
    screen       what the terminal shows meanwhile
    api          the leader's HTTP API, typed
    errors       what may go wrong, and its exit code
    check        the other program, --check: a history under faults, recorded and judged

It knows a trikv cluster by the leader's HTTP API alone, so that it can judge the node from outside,
and drive a cluster whose followers it cannot reach. Of `trikv` it imports nothing but `processes`, which
starts nodes and knows nothing of what they do.
"""
