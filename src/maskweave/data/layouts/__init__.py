"""Published data sets in the layout that their authors distribute. `base.py` has the interface and the list of layouts."""
