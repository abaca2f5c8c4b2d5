"""Replication: the path of a write. Open `replicate` first.

A client's write comes to the `leader`, which issues a version and commits it. All writes of one
transaction are a *commit group*. In the step of the commit `replicate` reserves room for the group
on the *link* of each follower, and starts, in a background nursery, a task for each delivery; a
memory channel counts their acknowledgements until the write quorum is reached. The rest goes on in
the background.

    leader      admission, version, commit; reads that only a leader can answer
    write       a write from its beginning to its outcome; commit groups
    replicate   a task for each follower, and the channel that counts ACKs
    link        the leader's end of one follower: its states, its session, one request after another
    outbox      the batches that are on their way to one follower
    pacing      which followers a quorum waits for, and which keep up
    handshake   what a leader asks of a follower before it sends it anything
    host        what a link needs of the leadership that it is part of
    follower    the other end: check the epoch, merge, commit, acknowledge; and promises
"""
