"""Takeover: how a node comes to lead, and what it does beside writes while it leads.

A candidate picks an epoch above all that it has seen and asks the members to *promise* it. With
promises of N - k members it has met every confirmed write (Howard, Malkhi and Spiegelman, "Flexible
Paxos", 2016). Then it reads what they hold, and leads. Every start of a leader is a takeover.

    takeover        promises, reading, the last transaction
    leadership      links, admission of new nodes, override of divergent records, the low watermark
    quorum_change   changes of the write quorum and of the members
"""
