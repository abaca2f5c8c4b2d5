"""One node: what belongs to it, THE nurseries, and the order in which they start and stop.

node        the node, and its lifecycle
readiness   why it cannot do its work at the moment
"""
