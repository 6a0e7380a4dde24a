"""Rotation matrices written out, for tests of angle conventions."""

from __future__ import annotations

import numpy as np


def about_x(degrees):
    """Return the matrix that turns y towards z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def about_z(degrees):
    """Return the matrix that turns x towards y."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def zxz(phi, theta, psi):
    """Return the rotation by phi about z, then theta about x, then psi about z, all axes fixed."""
    return about_z(psi) @ about_x(theta) @ about_z(phi)
