"""Checking a store by what its clients saw: histories, and an oracle that knows nothing of trikv's code.

    linearizability   whether a history of one key can be that of a register
    history           what clients asked and were told: `Call`, `History`, and their JSON
    verdict           what is wrong with a history: `judge`

The simulation in `tests/simulation` and `python -m loadgen --check` use the same three modules.
"""
