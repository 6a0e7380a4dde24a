"""Subtomogram averaging: extract subtomograms at candidates, align them and average them."""
