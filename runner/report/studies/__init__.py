"""One module for each experiment in conf/experiment, of the same name, with its `STUDY`."""
