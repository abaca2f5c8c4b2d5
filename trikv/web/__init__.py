"""HTTP: the Quart-Trio app on Hypercorn, and nothing below it knows that it is there.

app       binds routes to handlers; reads bodies within bounds; the server
exchange  a request and an answer as the handlers see them; problem documents
routes    the table of all routes
kv        what clients do with keys
watch     the change stream
sse       server-sent events
peer      what nodes ask of each other
admin     what operators and teachers ask and change
app        binds routes to handlers; reads bodies within bounds; the server
exchange   a request and an answer as the handlers see them; problem documents
identity   the ids of requests
routes     the table of all routes
kv         what clients do with keys
peer       what nodes ask of each other
admin      what operators and teachers ask and change
telemetry  what machines ask in order to watch a node
timing     the story of one write as a header
"""
