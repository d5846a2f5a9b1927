"""What a home remembers: blobs by digest, state in SQLite, sealed secrets."""
