"""What the code has, the documents name: settings, routes, error codes, bounds, log events, commands.

Texts are compared word for word where a reader would take them so (defaults, values, commands); that a
sentence is true is beyond a test.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import click
import pytest

import trikv
import trikv.client
from trikv.cli import bench, survey
from trikv.cli import cluster as clusters
from trikv.cli.live import KEYS
from trikv.cli.main import trikv as command_line
from trikv.cli.outcome import ExitCode
from trikv.config import SETTINGS, Setting
from trikv.errors import TrikvError
from trikv.replication.link import LinkState
from trikv.web.routes import ROUTES, Route

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
API = ROOT / "docs" / "api.md"
DESIGN = ROOT / "docs" / "design.md"
OPERATIONS = ROOT / "docs" / "operations.md"
CLIENT = ROOT / "docs" / "client.md"
CLI = ROOT / "docs" / "cli.md"
METRICS = ROOT / "docs" / "metrics.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [
    *(README, API, DESIGN, OPERATIONS, CLIENT, CLI, METRICS, PERFORMANCE, TUTORIAL),
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]

RUN_COMMAND = (
    "python3 -m venv .venv && .venv/bin/pip install '.[loadgen]' && .venv/bin/python -m loadgen"
)
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"

#: The base of other errors, and what one node says to itself of another.
NEVER_ANSWERED = {"refused", "peer_failed", "superseded"}

#: Numbers that mark a file's format, and bound nothing.
NOT_BOUNDS = {
    "storage.database.APPLICATION_ID",
    "storage.database.FORMAT",
    "storage.database.PAGE_BYTES",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def rows(page: Path) -> list[list[str]]:
    """The cells of every table row of a page, without the backticks around them."""
    lines = [line for line in text_of(page).splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def row_of(page: Path, name: str) -> list[str]:
    """The one table row that is about `name`."""
    found = [row for row in rows(page) if row[0] == name]
    assert len(found) == 1, f"{page.name} has {len(found)} table rows about {name}, expected one"
    return found[0]


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The names that the headings of a page can be linked by, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def bounds() -> list[tuple[str, float]]:
    """Every public number in capitals, by the module that defines it."""
    found = []
    for module in pkgutil.walk_packages(trikv.__path__, "trikv."):
        if module.name == "trikv.__main__":
            continue
        names = vars(importlib.import_module(module.name))
        source = text_of(ROOT / f"{module.name.replace('.', '/')}{'/__init__' * module.ispkg}.py")
        for name in re.findall(r"^([A-Z][A-Z_]+) = ", source, re.MULTILINE):
            known_as = f"{module.name.removeprefix('trikv.')}.{name}"
            if isinstance(names[name], int | float) and known_as not in NOT_BOUNDS:
                found.append((known_as, names[name]))
    return found


def errors(parent: type[TrikvError] = TrikvError) -> list[type[TrikvError]]:
    """Every error that has a code of its own."""
    found = []
    for child in parent.__subclasses__():
        found += [child] if "code" in vars(child) else []
        found += errors(child)
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_operations_tells_every_setting_with_its_default_and_check(setting: Setting) -> None:
    _, default, unit, expected, meaning = row_of(OPERATIONS, setting.name)
    assert default == (setting.default or "not set")
    assert expected == setting.expected
    assert meaning
    assert unit or "milliseconds" not in expected


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_api_has_a_section_and_an_overview_row_for_every_route(route: Route) -> None:
    section = f"{route.method} {route.path}"
    assert f"\n### {section}\n" in text_of(API)
    assert f"| [`{section}`](#" in text_of(API)


def test_the_api_has_no_section_for_a_route_that_is_not_there() -> None:
    sections = re.findall(r"^### ([A-Z]+ /.*)$", text_of(API), flags=re.MULTILINE)
    assert sections == [f"{route.method} {route.path}" for route in ROUTES]


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.code)
def test_the_api_tells_every_error_code(error: type[TrikvError]) -> None:
    if error.code in NEVER_ANSWERED:
        assert f"`{error.code}`" in prose_of(API)
        return
    _, status, meaning, may_have_written = row_of(API, error.code)
    assert status == str(error.status)
    assert meaning
    assert may_have_written.startswith("**yes**" if error.may_have_written else "no")


def test_the_clients_guide_tells_every_public_name() -> None:
    told = "\n".join(row[0] for row in rows(CLIENT))
    for name in trikv.client.__all__:
        assert re.search(rf"\b{name}\b", told), name
        assert getattr(trikv.client, name).__doc__ or name in ("Consistency", "Operation")


@pytest.mark.parametrize("name", ["Client", "Session", "SyncClient", "SyncSession", "Batching"])
def test_the_clients_guide_tells_every_method(name: str) -> None:
    kind = getattr(trikv.client, name)
    methods = [method for method in dir(kind) if not method.startswith("_")]
    (row,) = [row for row in rows(CLIENT) if re.search(rf"\b{name}\b", row[0])]
    if name == "SyncClient":  # the same without batching, and with close
        methods.remove("close")
        row = next(row for row in rows(CLIENT) if row[0].startswith("Client("))
    for method in methods:
        assert re.search(rf"\b{method}\b", row[1]), method
        assert getattr(kind, method).__doc__


def test_the_sync_client_has_the_methods_of_the_other_word_for_word() -> None:
    for one, other in (("Client", "SyncClient"), ("Session", "SyncSession")):
        kind, plain = (getattr(trikv.client, name) for name in (one, other))
        for method in ("__init__", "put", "get", "delete", "batch", "list", "watch"):
            expected, found = (
                [
                    (parameter.name, parameter.kind, parameter.default)
                    for parameter in inspect.signature(getattr(each, method)).parameters.values()
                ]
                for each in (kind, plain)
            )
            if method != "__init__" or one == "Client":
                assert found == expected, method


COMMANDS = command_line.commands.values()

#: Told once, for all commands.
COMMON = {"--url", "--timeout", "--json", "--help", "--version"}


def section_of(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    _, found, rest = text_of(page).partition(f"\n### {heading}\n")
    assert found, heading
    return re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def told_in(text: str) -> set[str]:
    """What stands in backticks, in the first cell of a table row."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_command_line_has_a_section_for_every_command_and_a_row_for_every_option(
    command: click.Command,
) -> None:
    options = {
        name for param in command.params if isinstance(param, click.Option) for name in param.opts
    }
    rows_of_section = {
        words.split()[0] for words in told_in(section_of(CLI, f"trikv {command.name}"))
    }
    assert options - COMMON <= rows_of_section
    told = {words for words in rows_of_section if words.startswith("--")}
    assert told <= options, "an option that is not there"
    assert command.help
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help


def test_the_command_line_tells_no_command_that_is_not_there() -> None:
    told = re.findall(r"^### trikv (.*)$", text_of(CLI), flags=re.MULTILINE)
    assert told == list(command_line.commands)
    everywhere = {words.split()[0] for words in told_in(text_of(CLI))}
    assert everywhere >= COMMON


@pytest.mark.parametrize("code", ExitCode)
def test_the_command_line_tells_every_exit_code(code: ExitCode) -> None:
    assert row_of(CLI, str(int(code)))[1]


def test_the_command_line_tells_every_field_key_and_event() -> None:
    status, cluster = (section_of(CLI, f"trikv {name}") for name in ("status", "cluster"))
    kinds = (survey.Survey, survey.NodeView)
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert fields | {"healthy"} <= told_in(status)
    measured = bench.document(bench.Measured(1.0, [1.0]), survey.Survey([]), 1)
    told = section_of(CLI, "trikv bench")
    assert set(measured) <= told_in(told)
    for name in (*measured["latency_ms"], *measured["histogram"][0]):
        assert f"`{name}`" in told
    pressed = {key for keys, _ in KEYS for key in keys.replace("↑↓ 1–9", "↑ ↓ 1 9").split()}
    assert pressed <= told_in(cluster)
    source = text_of(ROOT / "trikv" / "cli" / "laboratory.py") + text_of(Path(clusters.__file__))
    only_by_keys = {"refused", "promoted", "failed", "quorum", "burst", "cut"}
    events = set(re.findall(r"say\(\s*\"(\w+)\"", source)) - only_by_keys
    events |= {"starting", "started", "stopping", "stopped", "killed", "ended"}
    assert events <= told_in(cluster)


@pytest.mark.parametrize(("name", "value"), bounds())
def test_the_design_tells_every_bound_with_its_value_and_reason(name: str, value: float) -> None:
    _, told, reason = row_of(DESIGN, name)
    assert told == str(value)
    assert reason


def test_the_design_tells_no_bound_that_is_not_there() -> None:
    told = {row[0] for row in rows(DESIGN) if re.fullmatch(r"[a-z0-9_.]+\.[A-Z_]+", row[0])}
    assert told == {name for name, _ in bounds()}


@pytest.mark.parametrize("page", [DESIGN, OPERATIONS], ids=lambda page: page.name)
def test_every_link_state_is_told(page: Path) -> None:
    for state in LinkState:
        assert row_of(page, state)


def test_operations_tells_every_event_that_is_logged() -> None:
    source = "".join(text_of(path) for path in (ROOT / "trikv").rglob("*.py"))
    events = set(re.findall(r"log\.(?:info|warning|logger\.error)\(\s*\"([a-z.]+)\"", source))
    events |= set(re.findall(r"log\.event\(\s*[\w.]+,\s*\"([a-z.]+)\"", source))
    assert "node.started" in events
    told = prose_of(OPERATIONS)
    assert {event for event in events if f"`{event}`" not in told} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.is_relative_to(ROOT), target
        assert aim.exists(), target
        if anchor:
            assert anchor in anchors_of(aim), target


def test_the_readme_shows_the_plot() -> None:
    assert "](docs/images/quorum_vs_latency.png)" in text_of(README)


def test_the_readme_has_the_two_commands_in_sh_and_powershell() -> None:
    blocks = re.findall(r"^```(sh|powershell)\n(.*?)^```$", text_of(README), re.DOTALL | re.M)
    for command in (RUN_COMMAND, TEST_COMMAND):
        assert ("sh", f"{command}\n") in blocks
        assert ("powershell", f"{in_powershell(command)}\n") in blocks


@pytest.mark.parametrize("page", [README, CLI, TUTORIAL], ids=lambda page: page.name)
def test_where_trikv_is_typed_without_a_path_it_was_said_how_it_is_found(page: Path) -> None:
    before, typed, _ = text_of(page).partition("\n$ trikv ")
    assert typed
    assert 'export PATH="$PWD/.venv/bin:$PATH"\n' in before


def in_powershell(command: str) -> str:
    """A chain of commands as PowerShell takes it, from its first versions on."""
    steps = command.replace("python3 -m venv", "py -m venv").split(" && ")
    return "; ".join(step.replace(".venv/bin/", ".venv\\Scripts\\") for step in steps)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    # A line for each step: in a chain of && only the last one's failure ends a script.
    steps = [step for step in text_of(ROOT / ".ci" / "run").splitlines() if ".venv" in step]
    assert steps[:3] == TEST_COMMAND.split(" && ")
