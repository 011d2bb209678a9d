"""What a judge says of mined rows: which pairs it is asked about, what follows from its answers, and what is written."""
