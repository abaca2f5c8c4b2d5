"""The command line `trikv`.

    main        exit codes; every way in which a command ends
    outcome     what each error means to a script and to a person
    options     what all commands take: nodes, a timeout, --json
    output      what is printed: documents, lines, tables, bars; colours only where they are seen
    serve       serve
    keys        get, put, delete, list, watch
    survey      what the nodes and the leader say, put together; whether all is well       (pure)
    status      status: the same as a table
    control     quorum, lag, cut, heal
    bench       bench
    cluster     cluster: a local cluster in one terminal
    laboratory  its nodes: started, killed, stopped, promoted
    live        its screen
    terminal    keys as they are pressed, and the screen given back; what differs by system
    completion  completion

What is asked of a cluster goes through `trikv.client`. The guide is docs/cli.md.
"""
