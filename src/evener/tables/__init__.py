# SPDX-License-Identifier: Apache-2.0
"""Pure: what is to be in force, compiled to the records of core/tables.h, and published in order.

`effective` merges the inputs, `compile` turns the result into arrays, `publish` writes them into
the copy that is not in force and flips one word. Nothing here does I/O or reads a clock.
"""
