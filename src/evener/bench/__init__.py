# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that print their figures beside their goals: `evener bench`, or `python -m evener.bench`.

Tier T1, the cost of the XDP program: `driver` writes frames and runs the program on them inside the
kernel, `dut` is the datapath under test with flows in it, `measure` interleaves it with the null
target, `cases` says what is measured and what the goals are, `report` prints.
"""
