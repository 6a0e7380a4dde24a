"""From candidates to a structure: subtomograms are cut out, aligned and averaged."""
