# SPDX-License-Identifier: Apache-2.0
"""reasons.md: every way in which a packet can end, from core/reasons.h."""

from __future__ import annotations

from evener._generated.reasons import SENTENCES, VERDICTS, Reason, Verdict
from reference import text, words

INTRODUCTION = """
Whatever becomes of a packet has one verdict and one reason, and each reason has one counter: `evener show reasons` shows
how many packets had it, `evener trace` and `evener explain` name it. Counters begin at 0 with the tables; a restart of
the daemon does not reset them.
"""


def write() -> str:
    """The page."""
    text.same_keys("reasons", (reason.name for reason in Reason), words.REASONS)
    parts = [INTRODUCTION]
    for verdict in (Verdict.FORWARD, Verdict.PASS, Verdict.DROP):
        name = verdict.name.lower()
        rows = [
            [text.code(reason.name), _sentence(SENTENCES[reason]), words.REASONS[reason.name]]
            for reason in Reason
            if VERDICTS[reason] is verdict
        ]
        parts += [f"## {name}", words.VERDICTS[name]]
        parts.append(text.table(["reason", "what is so", "what to do"], rows))
    return text.page("Reasons", *parts)


def _sentence(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
