"""The section "How cost grows" of docs/performance.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Growth, Spread
from benchmarks.goals import MILLION
from benchmarks.tables import bend_sentence, column, cost, series_table, table, told

POWERS = (
    "A *power* below says how a cost grows: 0 is not at all, 1 in proportion, 2 with the square; below\n"
    "0 it falls. It is computed from the medians."
)


def sections(growth: Growth) -> list[str]:
    """A section for each part that was measured."""
    found = [POWERS]
    for section in (clients, followers, values, keys, million, lag):
        text = section(growth)
        if text:
            found.append(text)
    return found


def clients(growth: Growth) -> str:
    rates = {w: column(growth, "clients", "rate", workload=w) for w in ("put", "get-local")}
    if not rates["put"]:
        return ""
    slow = {w: column(growth, "clients", "p99_ms", workload=w) for w in rates}
    head = (">clients", ">PUT/s", ">PUT p99 ms", ">GET/s", ">GET p99 ms")
    columns = (rates["put"], slow["put"], rates["get-local"], slow["get-local"])
    return paragraphs(
        "### Clients",
        "![Rate and latency against clients](images/performance_clients.png)",
        series_table(head, columns),
        bend_sentence("The time for each PUT", "the clients", cost(rates["put"]))
        + " It falls while writes share commits and requests to followers; once the cores are busy "
        "it can fall no further, and latency grows with the clients that wait.",
    )


def followers(growth: Growth) -> str:
    rates = column(growth, "followers", "rate")
    if not rates:
        return ""
    cpu = column(growth, "followers", "cpu_us_per_operation")
    columns = (rates, column(growth, "followers", "p99_ms"), cpu)
    return paragraphs(
        "### Followers",
        "![Rate and CPU against followers](images/performance_followers.png)",
        series_table((">followers", ">PUT/s", ">p99 ms", ">CPU µs each, all nodes"), columns),
        bend_sentence("CPU for each write, over all nodes,", "the followers", cpu)
        + " Every follower does the same work, and here all of them do it on the same cores.",
    )


def values(growth: Growth) -> str:
    puts = column(growth, "values", "rate", workload="put")
    if not puts:
        return ""
    gets = column(growth, "values", "rate", workload="get-local")
    slow = column(growth, "values", "p99_ms", workload="put")
    return paragraphs(
        "### Size of values",
        "![Rate against the size of values](images/performance_values.png)",
        series_table((">bytes", ">PUT/s", ">PUT p99 ms", ">GET/s"), (puts, slow, gets)),
        bend_sentence("The time for each PUT", "the size", cost(puts)),
        bend_sentence("The time for each GET", "the size", cost(gets)),
    )


def keys(growth: Growth) -> str:
    puts = column(growth, "keys", "rate", workload="put")
    if not puts:
        return ""
    gets = column(growth, "keys", "rate", workload="get-local")
    filled = column(growth, "keys", "filled_records_per_s")
    memory = column(growth, "keys", "leader_mb")
    head = (">keys", ">PUT/s", ">GET/s", ">filled by batches, records/s", ">leader's memory, MB")
    return paragraphs(
        "### Number of keys",
        "![Rate and memory against the number of keys](images/performance_keys.png)",
        series_table(head, (puts, gets, filled, memory)),
        bend_sentence("The time for each PUT", "the keys", cost(puts)),
        bend_sentence("The time for each GET", "the keys", cost(gets)),
        memory_per_key(memory),
    )


def memory_per_key(memory: Sequence[tuple[float, Spread]]) -> str:
    """What a key of 100 bytes adds to the leader's memory."""
    by_keys = dict(memory)
    if len(by_keys) < 2:
        return ""
    least, most = min(by_keys), max(by_keys)
    added_mb = by_keys[most].median - by_keys[least].median
    return (
        f"From {least:,.0f} to {most:,.0f} keys the leader's memory grows by {added_mb:.0f} MB: "
        f"{added_mb * 1e6 / (most - least):.0f} bytes for each key more. The map is on disk, in SQLite; "
        "what is in memory is SQLite's cache and what is on its way."
    )


def million(growth: Growth) -> str:
    names = (
        ("a follower starts", "follower_start_s", "s"),
        ("the leader starts", "leader_start_s", "s"),
        ("the leader is ready, all links live", "leader_ready_s", "s"),
        ("an empty follower is filled, from its start on", "caught_up_s", "s"),
        ("… of that, from the first record to the last", "syncing_s", "s"),
        ("… that is", "caught_up_records_per_s", "records/s"),
        ("the leader's memory then", "leader_caught_up_mb", "MB"),
        ("the leader's memory after its start", "leader_started_mb", "MB"),
    )
    rows = [
        (name, told(one) + f" {unit}")
        for name, field, unit in names
        if (one := growth.at("keys", MILLION, field)) is not None
    ]
    if not rows:
        return ""
    return paragraphs("### With a million keys", table(("what", ">"), rows))


def lag(growth: Growth) -> str:
    p50 = column(growth, "lag", "overhead_p50_ms")
    if not p50:
        return ""
    p99 = column(growth, "lag", "overhead_p99_ms")
    mean = column(growth, "lag", "latency_mean_ms")
    head = (">quorum", ">overhead p50 ms", ">overhead p99 ms", ">mean latency ms")
    return paragraphs(
        "### Overhead under simulated lag",
        "The ideal of a write with quorum *k* is the *k*-th smallest of the lags that were drawn for "
        "it; what it takes beyond that is the overhead. Measured by `python -m loadgen`, whose own work "
        "is in it.",
        "![Overhead against the write quorum](images/performance_lag.png)",
        series_table(head, (p50, p99, mean)),
        light(growth),
    )


def light(growth: Growth) -> str:
    """The same at the usual quorum, without the load generator's own work."""
    names = ("light_overhead_p50_ms", "light_overhead_p99_ms")
    at_client = [growth.at("lag", 3, name) for name in names]
    at_leader = [growth.at("lag", 3, name.replace("light", "leader")) for name in names]
    rows = [
        [where, *(told(one) for one in spreads if one is not None)]
        for where, spreads in (
            ("at a light client", at_client),
            ("at the leader, when its quorum was met", at_leader),
        )
        if None not in spreads
    ]
    if not rows:
        return ""
    return paragraphs(
        "The load generator drives all its clients from one process, with httpx, and draws a screen "
        "beside. With a thread and a bare connection for each client, quorum 3:",
        table(("where", ">overhead p50 ms", ">overhead p99 ms"), rows),
    )


def paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
