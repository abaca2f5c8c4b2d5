"""The local cluster's small parts; that it really starts and stops is the e2e tests' affair."""

import pytest

from loadgen import cluster
from trikv import config


@pytest.mark.parametrize(
    ("line", "url"),
    [
        (
            "2026-11-22T12:00:00.123Z INFO node.started role=follower node_id=follower1 "
            "url=http://127.0.0.1:43211 data_dir=/tmp/x",
            "http://127.0.0.1:43211",
        ),
        ('… INFO node.started url="http://[::1]:80" role=leader', "http://[::1]:80"),
        ("INFO node.starting url=http://127.0.0.1:1", None),
        ("INFO node.started role=leader\nINFO other url=http://127.0.0.1:1", None),
    ],
)
def test_a_nodes_url_is_read_from_the_line_that_says_it_has_started(
    line: str, url: str | None
) -> None:
    found = cluster._STARTED.search(line)
    assert (found[1] if found else None) == url


def test_no_setting_of_a_node_can_leak_in_from_the_shell() -> None:
    assert {setting.name for setting in config.SETTINGS} <= set(cluster.NODE_SETTINGS)
