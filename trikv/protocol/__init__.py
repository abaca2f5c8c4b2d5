"""The protocol: bytes to types, and back. Pure.

Everything that comes from outside is decoded and checked here, against a type; what does not fit is
refused with the name of the field and what was expected there.

    json_value   JSON that is kept as it came: one canonical text for a value
    requests     what clients send, and how a body becomes a type
    messages     what nodes send each other, and the answers; batches of records
    canonical    the fast path: a body in the canonical form is taken as a whole
    urls         base URLs of nodes
    sse          server-sent events, as they are read
"""
