# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds: it is read, or refused with a ConfigError that points into it.

And the line index knows exactly the keys that tomllib knows, for every text that tomllib accepts.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evener import config
from evener.config import lines
from evener.errors import ConfigError
from tests.support.configs import FULL, WRONG

FANCY = '''\
title = "a \\" b" # comment ] }
"quoted key".'lit.eral' = 'x = "y"'
long = """
one = 1
[not.a.table] ""\\""""
quotes = """"a"""""
literal = \'\'\'
'' x = [
\'\'\'\'
dates = [1979-05-27T07:32:00.5-07:00, 1979-05-27 07:32:00, 07:32:00]
numbers = [
  +1.5e3, # two ]
  [ 0xf_f, [ { a.b = 1, a.c = [ 2 ] } ] ],
  inf,
]
[a . "b.c" .d]
x.y.z = true
[[list]]
[[list.inner]]
k = 1
[[list.inner]]
[list.inner.deep]
k = { }
[[list]]
"" = []
[a]
last = {x={y={z=1}}}
'''
SEEDS = (FULL, WRONG, FANCY)
PIECES = st.sampled_from(
    [
        *"[]{}=.,\"'#\n\r\t\\ -_:/09aé\0\ufeff",
        '"""',
        "'''",
        "[[",
        "]]",
        "\r\n",
        "true",
        "nan",
        "1e999",
        "0x" + "f" * 60,
        "1979-05-27",
        "{}",
        "[]",
        "pool",
        "[pool.web]",
        "[[pool.web]]",
        "[service.web]",
        "backends = []",
        "a.b = 1",
        '"[key]" = 1',
        '"10.0.0.10:8080"',
        "'[::1]:80'",
        "= {a = 1}",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A seed with a few pieces put in, taken out, replaced or doubled."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        match draw(st.sampled_from(["insert", "delete", "replace", "double", "line"])):
            case "insert":
                text = text[:start] + draw(PIECES) + text[start:]
            case "delete":
                text = text[:start] + text[end:]
            case "replace":
                text = text[:start] + draw(PIECES) + text[end:]
            case "double":
                text = text[:end] + text[start:]
            case _:
                rows = text.split("\n")
                row = draw(st.integers(0, len(rows) - 1))
                rows[row] = draw(PIECES) if draw(st.booleans()) else ""
                text = "\n".join(rows)
    return text


VALUES = st.recursive(
    st.sampled_from(['"x"', "1", "true", "nan", "1979-05-27", '"10.0.0.2:80"', '""', "0xff", "-1"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(["address", "weight", "name", "web", "backends", "zz"]),
            inner,
            max_size=3,
        ).map(lambda items: "{" + ", ".join(f"{k} = {v}" for k, v in items.items()) + "}"),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["datapath", "pool", "service", "timeouts", "pool.web", "service.web", "pool.web.backends",
     "pool.web.scheduler", "service.web.snat", "service.web.pool", "datapath.interfaces", "zz.a"]
)  # fmt: skip


def paths(value: Any, path: lines.Path = ()) -> Iterator[lines.Path]:
    """Every place in parsed data."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from paths(item, (*path, position))


def read(text: str) -> None:
    """Read it, or check that the refusal is a good one."""
    rows = text.replace("\r\n", "\n").count("\n") + 1
    refused: ConfigError | None = None
    try:
        config.loads(text)
    except ConfigError as error:
        refused = error
    if refused is None:
        return
    assert refused.problems
    assert str(refused).count("\n") == len(refused.problems)
    for problem in refused.problems:
        assert 1 <= problem.line <= rows
        assert problem.message
        assert problem.allowed


relaxed = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(mutated())
def test_mutated_files(text: str) -> None:
    read(text)


@relaxed
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_value_anywhere(items: dict[str, str]) -> None:
    read("\n".join(f"{key} = {value}" for key, value in items.items()))


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    read(text)
    lines.index(text)


@relaxed
@given(mutated())
def test_the_index_knows_what_tomllib_knows(text: str) -> None:
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except ValueError:
        lines.index(text)
        return
    assert set(lines.index(text)) == set(paths(data))


def test_lines_of_a_fancy_file() -> None:
    index = lines.index(FANCY)
    assert set(index) == set(paths(tomllib.loads(FANCY)))
    rows = FANCY.split("\n")

    def line(*path: str | int) -> str:
        return rows[index[path] - 1]

    assert line("quoted key", "lit.eral").startswith('"quoted key"')
    assert line("quotes").startswith("quotes")
    assert line("dates", 2).startswith("dates")
    assert line("numbers", 0).strip().startswith("+1.5e3")
    assert line("numbers", 1, 1, 0, "a", "c", 0).strip().startswith("[ 0xf_f")
    assert line("numbers", 2).strip() == "inf,"
    assert line("a", "b.c", "d", "x", "y", "z") == "x.y.z = true"
    assert line("list", 0, "inner", 0, "k") == "k = 1"
    assert line("list", 0, "inner", 1, "deep", "k") == "k = { }"
    assert line("list", 1, "") == '"" = []'
    assert line("a") == "[a]"
    assert line("a", "last", "x", "y", "z").startswith("last")
