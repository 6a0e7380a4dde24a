"""Star files as other programs write them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import starfile

from t3ssfast.io.particles.relion import read_star


def test_every_star_file_reads_as_the_library_reads_it(data):
    for path in sorted(data.glob("*.star")):
        ours = read_star(path)
        theirs = starfile.read(path, always_dict=True)
        assert list(ours) == list(map(str, theirs))
        for name, table in theirs.items():
            assert list(ours[str(name)]) == list(table)
            for column in table:
                if pd.api.types.is_numeric_dtype(ours[str(name)][column]):
                    np.testing.assert_allclose(ours[str(name)][column], table[column].astype(float))
                else:
                    assert list(ours[str(name)][column]) == list(table[column].astype(str))


def test_star_syntax(tmp_path):
    (tmp_path / "a.star").write_text(
        "# written by hand\n\ndata_pairs\n_one 'two words' # and a comment\n_text\n;\nline 1\nline 2\n;\n"
        "\ndata_loop\nloop_ \n_rlnTomoName #1\n_number #2\n\n007 1\n'TS 8' 2.5 # comment\n\"it's\" -3\n\n"
    )
    blocks = read_star(tmp_path / "a.star")
    assert blocks["pairs"]["one"][0] == "two words"
    assert blocks["pairs"]["text"][0] == "line 1\nline 2"
    assert list(blocks["loop"]["rlnTomoName"]) == ["007", "TS 8", "it's"]
    assert list(blocks["loop"]["number"]) == [1, 2.5, -3]
