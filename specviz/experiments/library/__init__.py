"""The experiments that come with the project, one a file; the file's name is the experiment's."""
