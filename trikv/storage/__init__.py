"""Storage: the records of one node, and what it knows of itself, in SQLite.

A change is a function of the store. `group_commit` runs all changes that wait in one transaction,
with one fsync. Large writes wait in the *write buffer* before they are merged into the table of
records.

    group_commit    many changes, one transaction; the only one that changes the store
    store           the node's records and facts
    record_table    the table of records, and the one statement that is the merge
    write_buffer    large writes, kept whole until most of what they wrote is overwritten
    epoch_ranks     epochs as integers, in their order
    database        the file, its connections, its write-ahead log
    data_files      whether the files of the data directory are in place, and who may read them
    reverse_scan    the store read from its newest record back, for a follower that catches up
    digest          one number for all records, to compare replicas
"""
