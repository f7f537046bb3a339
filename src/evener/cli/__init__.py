# SPDX-License-Identifier: Apache-2.0
"""The `evener` command: arguments in, text or JSON out. It decides nothing.

Each command is a file, loaded when it is called; what takes long to import is imported inside the
function that needs it.
"""
