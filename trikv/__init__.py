"""trikv: a replicated key-value store with one leader, semi-synchronous followers, and a quorum."""

__version__ = "0.1.0"
