"""HTTP: the fast lane, the Quart-Trio app on Hypercorn, and nothing below knows that they are there.

server     the listening socket, and on each connection the fast lane, then Hypercorn
plain      reads plain requests; fastlane answers those of the hot routes
app        binds routes to handlers on Quart; reads bodies within bounds
exchange   a request and an answer as the handlers see them; problem documents
identity   the ids of requests
routes     the table of all routes
kv         what clients do with keys
watch      the change stream; sse, server-sent events
peer       what nodes ask of each other
admin      what operators and teachers ask and change
telemetry  what machines ask in order to watch a node; timing, the story of one write as a header
events     what happens, for those who look; pages, the dashboard's files (in ui/)
openapi    the description of the API, from described and schemas; manual sends it, and as a page
"""
