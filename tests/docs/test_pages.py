# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: files, headings, make's targets, commands and their options."""

import re
import tomllib
from pathlib import Path

import pytest

from evener import config
from tests.support import pages
from tests.support.pages import PAGES, ROOT

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=pages.name)
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


@EACH_PAGE
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in pages.links(page):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, fragment = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (fragment and fragment not in pages.anchors(target)):
            broken.append(link)
    assert broken == []


@EACH_PAGE
def test_files_that_are_named_exist(page: Path) -> None:
    paths = re.compile(r"(?:core|drivers|src|tests|tools|docs|bench)/[\w./-]*")
    named = [text for text in pages.quoted(page) if paths.fullmatch(text)]
    assert [text for text in named if not (ROOT / text).exists()] == []


@EACH_PAGE
def test_targets_of_make_exist(page: Path) -> None:
    assert pages.make_targets(page) - TARGETS == set()


@EACH_PAGE
def test_evener_commands_are_understood(page: Path) -> None:
    wrong = {line: pages.understood(line) for line in pages.evener_lines(page)}
    assert {line: problem for line, problem in wrong.items() if problem} == {}


@EACH_PAGE
def test_configurations_are_right(page: Path) -> None:
    for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.S | re.M):
        tomllib.loads(text)
        if "[datapath]" in text:
            config.loads(text)


def test_the_readme_has_commands_to_look_at() -> None:
    readme = ROOT / "README.md"
    assert {"demo", "test", "setup"} <= pages.make_targets(readme)
    assert len(pages.evener_lines(readme)) >= 10


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("evener show flows --client 10.0.0.1", ""),
        ("evener lab exec lb -- evener trace --count 3", ""),
        ("evener COMMAND --help", ""),
        ("evener shwo flows", 'no command "shwo", did you mean "show"?'),
        ("evener lab exec lb -- evener show flwos", 'no command "flwos", did you mean "flows"?'),
    ],
)
def test_understanding(line: str, problem: str) -> None:
    assert pages.understood(line) == problem


def test_an_unknown_option_is_noticed() -> None:
    assert "--cleint" in pages.understood("evener show flows --cleint 10.0.0.1")
