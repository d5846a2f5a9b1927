"""The floor of schedules. Nothing stands on it yet: they are declared and planned, and nothing fires."""
