"""What is shown of a node while it works. Nothing here changes anything.

metrics           what `GET /metrics` tells
store_size        how large the store is, and how late the event loop runs
dashboard_feed    what the dashboard is drawn from, ten times a second
change_stream     `GET /watch`: the latest change of every key, in version order
compare           which replicas differ, and where
shared            one run of something costly for all who ask at the same time
"""
