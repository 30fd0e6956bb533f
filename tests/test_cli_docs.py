from __future__ import annotations

import re

import pytest

from sfdkit.cli import COMMANDS
from sfdkit.cli_docs import reference
from tests.running import ROOT


@pytest.fixture(scope="module")
def written() -> str:
    return reference()


def test_docs_are_what_the_parsers_say(written: str) -> None:
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == written, "run make docs"


def test_each_command_has_a_section(written: str) -> None:
    sections = re.findall(r"^## sfdkit (.+)$", written, re.MULTILINE)
    assert len(sections) == len(set(sections))
    assert {name.split()[0] for name in sections} == set(COMMANDS)
    assert {"shards pack puppets", "shards check", "study run", "model summary", "model pack"} <= set(sections)


def test_options_come_with_what_they_mean_type_and_default(written: str) -> None:
    section = written.partition("## sfdkit shards pack puppets\n")[2].partition("\n## ")[0]
    assert re.search(r"^- `--output`: .+ \(required, type: str\)$", section, re.MULTILINE)
    assert re.search(r"^- `--seed`: .+ \(type: \w+, default: 0\)$", section, re.MULTILINE)
    assert "- `FOLDER`: " in written.partition("## sfdkit study run\n")[2].partition("\n## ")[0]
    assert "--trainer.max_steps" in written and not re.search(r":\w+:`|``\w|Args:", written.replace("```", ""))
