# SPDX-License-Identifier: Apache-2.0
"""reasons.md: every way in which a packet can end, from core/reasons.h."""

from __future__ import annotations

from evener._generated.reasons import SENTENCES, VERDICTS, Reason, Verdict
from evener.datapath.dpdk_counts import SENTENCES as SENTENCES_OF_FRAMES
from reference import text, words

INTRODUCTION = """
Whatever becomes of a packet has one verdict and one reason, and each reason has one counter: `evener show reasons` shows
how many packets had it, `evener trace` and `evener explain` name it. Counters begin at 0 with the tables; a restart of
the daemon does not reset them.
"""

FRAMES = """
A frame that is lost before the core sees it, or after it has decided, has no reason, or has that of a packet that was
sent. The driver `dpdk` counts these itself, and `evener show status` lists those that were lost; with `--json`, all, for
each lane or interface. What devices count is read once a second, and not every device counts everything. These, too,
begin at 0 with the tables. What is lost with `xdp`, the kernel counts: `ip -s link`, `ethtool -S`.

`net_tap` and `net_af_xdp` do not count frames that find their queue full. The kernel does, of the interface that `iface=`
names, and `imissed` has it: `TX dropped` of `ip -s link` with `net_tap`, `RX dropped` with `net_af_xdp`. With
`net_af_packet` and `net_virtio_user` nobody counts them, and `imissed` is `null`: compare what came in by `RX packets` of
`ip -s link` with the sum of all reasons.
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
    text.same_keys("counters of frames", SENTENCES_OF_FRAMES, words.FRAMES)
    of_frames = [
        [text.code(name), _sentence(sentence), words.FRAMES[name]]
        for name, sentence in SENTENCES_OF_FRAMES.items()
    ]
    parts += ["## Frames that have no reason", FRAMES]
    parts.append(text.table(["counter", "what became of frames", "what to do"], of_frames))
    return text.page("Reasons", *parts)


def _sentence(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
