"""Whatever is typed, and whatever nodes answer: one of the exit codes, and never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.cli.console import Console, Stream
from tests.unit.client.fake_watch import version
from tests.unit.client.wires import A, Asked, Reply
from trikv.cli import status, survey
from trikv.cli.main import trikv
from trikv.cli.outcome import ExitCode
from trikv.cli.output import Output
from trikv.client.wire import CODES

#: `serve` and `cluster` start something; a watch, and a status that is watched, have no end.
COMMANDS = sorted(set(trikv.commands) - {"serve", "cluster", "watch"})
OPTIONS = sorted(
    {name for command in trikv.commands.values() for param in command.params for name in param.opts}
    - {"--watch", "--url"}
)
WORDS = (
    st.sampled_from([*OPTIONS, "-", "--", "", "0", "1", "-1", "local", "bash", version(1)])
    | st.text(max_size=8)
    | st.text(st.characters(codec=None), max_size=4)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = (
    *("role", "leads", "ready", "waiting_for", "epoch", "lag", "followers", "leader", "items"),
    *("next", "key", "value", "version", "follower_acks", "write_quorum", "node_id", "url", "cut"),
    *("detail", "retry_after_s", "warning", "records", "link", "status", "lag_ms", "lag_records"),
    *("differing_keys", "differing_keys_total", "min_delay_ms", "max_delay_ms", "error", "settled"),
)
#: What answers have, of the right type or not.
FIELDS = st.dictionaries(
    st.sampled_from(NAMES),
    JSON | st.sampled_from(["leader", "follower", version(1), A, 1, True, [], [{}], {"url": A}]),
    max_size=8,
)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    fields = draw(FIELDS)
    if draw(st.booleans()):
        return Reply(200, fields)
    code = draw(st.sampled_from(sorted(CODES)) | st.text(max_size=5))
    told = {"type": f"urn:trikv:problem:{code}", "status": 400, "detail": "so it is", "code": code}
    return Reply(
        draw(st.sampled_from([400, 404, 503])), {**fields, **told}, "application/problem+json"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_crashes_a_command(command: str, console: Console) -> None:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(WORDS, max_size=5), st.lists(replies(), min_size=1, max_size=5), st.booleans())
    def run(words: list[str], answers: list[Reply], terminal: bool) -> None:
        number = 0

        def answer(asked: Asked) -> Reply:
            nonlocal number
            number += 1
            return answers[number % len(answers)]

        bounded = ["--timeout", "0.5", "--url", A] if command != "completion" else []
        ended = console(
            command,
            *bounded,
            *(["--seconds", "0.1"] if command == "bench" else []),
            *words,
            answers=answer,
            columns=80 if terminal else None,
        )
        assert ended.code in set(ExitCode) - {ExitCode.FAILED}, ended.err
        assert "Traceback" not in ended.err
        if (
            "--json" in words
            and "--" not in words
            and ended.code == 0
            and "Usage:" not in ended.out
        ):
            assert all(isinstance(json.loads(line), dict) for line in ended.out.splitlines())

    run()


NESTED = st.recursive(
    FIELDS,
    lambda inner: st.dictionaries(
        st.sampled_from(NAMES), inner | st.lists(inner, max_size=3), max_size=6
    ),
    max_leaves=4,
)


@given(st.lists(NESTED, min_size=1, max_size=3), NESTED)
def test_a_survey_takes_whatever_it_is_told(healths: list[Any], replicas: Any) -> None:
    found = {f"http://n{i}:1": health for i, health in enumerate(healths)}
    leading = {**found, A: {**healths[0], "role": "leader", "leads": True}}
    for given_healths in (found, leading):
        leader_url = survey.who_leads(given_healths)
        told = survey.put_together(given_healths, leader_url, replicas if leader_url else None)
        output = Output(out=Stream(terminal=True), err=Stream(), environment={})
        assert all(isinstance(line, str) for line in status.picture(output, told))
        json.dumps(told.document)
