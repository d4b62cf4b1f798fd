"""One file per data set that Kiln makes, and the manifest that all of them are read through."""
