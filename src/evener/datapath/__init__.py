# SPDX-License-Identifier: Apache-2.0
"""Where tables meet packets: one seam, a body for each driver, what they need of Linux."""
