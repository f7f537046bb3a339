# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/reference, one module for each; tools/gen_docs.py writes them.

A page says what the code says. Where words are needed that the code does not have, they are in
`words.py`, and a page refuses to be written when words and code do not match.
"""
