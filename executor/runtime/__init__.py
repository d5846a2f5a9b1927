"""What makes containers; each module implements the `Runtime` port."""
