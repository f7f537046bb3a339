# SPDX-License-Identifier: Apache-2.0
"""What differs between two configurations, in the words of the configuration. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from evener.model import Config, Pool, Service


def diff(old: Config, new: Config) -> list[str]:
    """One line for each change: `+ service web`, `- backend web/h2`, `~ backend web/h3 weight 1 -> 2`."""
    return [
        *_datapath(old, new),
        *_pools(old, new),
        *_services(old, new),
        *(
            f"~ timeouts.{f.name} {getattr(old.timeouts, f.name)} s -> {getattr(new.timeouts, f.name)} s"
            for f in fields(old.timeouts)
            if getattr(old.timeouts, f.name) != getattr(new.timeouts, f.name)
        ),
    ]


def _datapath(old: Config, new: Config) -> Iterator[str]:
    for name in ("driver", "interfaces", "flows", "eal"):
        was, is_ = getattr(old.datapath, name), getattr(new.datapath, name)
        if was != is_:
            yield f"~ datapath.{name} {_text(was)} -> {_text(is_)}"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _pools(old: Config, new: Config) -> Iterator[str]:
    was, is_ = ({p.name: p for p in c.pools} for c in (old, new))
    for name in was:
        if name not in is_:
            yield f"- pool {name}"
    for name, pool in is_.items():
        if name not in was:
            yield f"+ pool {name}"
        yield from _backends(was.get(name), pool)


def _backends(old: Pool | None, new: Pool) -> Iterator[str]:
    was = {(b.address, b.port): b for b in old.backends} if old else {}
    is_ = {(b.address, b.port): b for b in new.backends}
    for key in was:
        if key not in is_:
            yield f"- backend {new.name}/{was[key].name}"
    for key, backend in is_.items():
        if key not in was:
            yield f"+ backend {new.name}/{backend.name} weight {backend.weight}"
        elif was[key].weight != backend.weight:
            yield f"~ backend {new.name}/{backend.name} weight {was[key].weight} -> {backend.weight}"
        elif was[key].name != backend.name:
            yield f"~ backend {new.name}/{was[key].name} name -> {backend.name}"


def _services(old: Config, new: Config) -> Iterator[str]:
    was, is_ = ({s.name: s for s in c.services} for c in (old, new))
    for name in was:
        if name not in is_:
            yield f"- service {name} {was[name].listen}"
    for name, service in is_.items():
        if name not in was:
            yield f"+ service {name} {service.listen}"
        else:
            yield from _service(was[name], service)


def _service(old: Service, new: Service) -> Iterator[str]:
    for name in ("listen", "pool", "mode", "snat"):
        was, is_ = getattr(old, name), getattr(new, name)
        if was != is_:
            yield f"~ service {new.name} {name} {_text(was)} -> {_text(is_)}"
