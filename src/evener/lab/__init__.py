# SPDX-License-Identifier: Apache-2.0
"""Throw-away networks in network namespaces: the place where the demo and the whole-system tests
run.

`namespaces` makes and enters namespaces, `topology` wires them up to one Ethernet segment,
`capture` writes what passes on it. Nothing here touches an interface of the namespace that the
caller lives in.
"""
