"""Syntax of star files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import starfile

from t3ssfast.errors import ReadError
from t3ssfast.io.particles.relion import read_star


def test_star_files_read_as_by_starfile(data):
    for path in sorted(data.glob("*.star")):
        found = read_star(path)
        expected = starfile.read(path, always_dict=True)
        assert list(found) == list(map(str, expected))
        for name, table in expected.items():
            assert list(found[str(name)]) == list(table)
            for column in table:
                if pd.api.types.is_numeric_dtype(found[str(name)][column]):
                    np.testing.assert_allclose(found[str(name)][column], table[column].astype(float))
                else:
                    assert list(found[str(name)][column]) == list(table[column].astype(str))


def test_quotes_comments_and_text_values(tmp_path):
    (tmp_path / "a.star").write_text(
        "# written by hand\n\ndata_pairs\n_one 'two words' # and a comment\n_text\n;\nline 1\nline 2\n;\n"
        "\ndata_loop\nloop_ \n_rlnTomoName #1\n_number #2\n\n007 1\n'TS 8' 2.5 # comment\n\"it's\" -3\n\n"
    )
    blocks = read_star(tmp_path / "a.star")
    assert blocks["pairs"]["one"][0] == "two words"
    assert blocks["pairs"]["text"][0] == "line 1\nline 2"
    assert list(blocks["loop"]["rlnTomoName"]) == ["007", "TS 8", "it's"]
    assert list(blocks["loop"]["number"]) == [1, 2.5, -3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "before the first data_ block"),
        ("data_a\nloop_\n_x\nloop_\n_y\n", "second table"),
        ("data_a\nloop_\n_x\n_x\n", "repeated column"),
        ("data_a\nloop_\n_x\n_y\n1\n", "1 values for 2 columns"),
        ("data_a\n_x 1 2\n", "name and a value"),
        ("data_a\n_x\n", "no value"),
        ("data_a\n_x\n;\ntext\n", "without an end"),
        ("data_a\n_x 1\nhello\n", "neither a name nor a value"),
        ("# nothing\n", "no data_ block"),
    ],
)
def test_invalid_syntax_raises(tmp_path, text, message):
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(ReadError, match=message):
        read_star(tmp_path / "a.star")
