"""What can be asked, one file for each family of clients: a request in, an answer out; the desk does the work."""
