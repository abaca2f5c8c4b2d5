"""The network between nodes, real and simulated.

transport          one request to another node, by httpx, and its reply
peer_connection    a kept connection for the batches of one link
socket_stream      a socket whose reads and writes have bounds
peers              what one node asks of another: a promise, its state, its records
simulated_lag      delays and cut wires, for those who want to see what they do
timer              sleeps that are exact to a fraction of a millisecond
"""
