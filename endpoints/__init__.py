"""The floor of the HTTP gateway. Nothing stands on it yet: endpoints are declared and planned, and not served."""
